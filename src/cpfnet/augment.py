"""Random changes of one sample for a loop of your own; arguments and conventions are those of
`cpfnet.training.samples.one_sample`."""

from cpfnet.errors import require_extras

with require_extras():
    from cpfnet.training.samples.one_sample import (
        Augment,
        blur,
        brightness,
        channel_dropout,
        colour,
        contrast,
        elastic,
        flip,
        gamma,
        illumination,
        low_resolution,
        noise,
        quarter_turns,
        rotation,
        scale,
    )

__all__ = [
    "Augment",
    "blur",
    "brightness",
    "channel_dropout",
    "colour",
    "contrast",
    "elastic",
    "flip",
    "gamma",
    "illumination",
    "low_resolution",
    "noise",
    "quarter_turns",
    "rotation",
    "scale",
]
