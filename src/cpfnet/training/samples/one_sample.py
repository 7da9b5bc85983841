"""Training's random changes for samples of one's own: an image, its mask and a generator in, both changed out.

The image is a float array ``(channels, [depth,] height, width)``, normalised: 0 … 1, or with mean 0 and SD 1 where
``zero_mean`` says so. The mask is ``([depth,] height, width)``, integers from 0 to 255 or bool. Both stay as they are;
what comes back is float32 and of the mask's type. Changes of shape move both, the image linearly and the mask by the
nearest neighbour, so that no label appears that was not there; the others change the image alone. All randomness is the
generator's: the same seed gives the same sample.

What moves in from beyond the image repeats its border; the mask there is ``outside``: by default its border goes on,
too. Give the loss's ``ignore_index`` (255, for example), and it does not count, as in training.

All raise `CpfnetError` for other arrays or numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cpfnet.errors import CpfnetError
from cpfnet.planning import Augmentation, Channel, MinMax, ZScore
from cpfnet.settings import validate
from cpfnet.training.samples.augment import SampleAugmenter

Sample = tuple[np.ndarray, np.ndarray]

_PROBABILITIES = (
    *("elastic", "rotation", "scale", "illumination", "colour", "low_resolution", "inverted_gamma", "gamma"),
    *("brightness", "contrast", "blur", "noise"),
)


class Augment:
    """All changes together, each with its probability, in training's order: shape in one resampling, then values.

    Args:
        spacing: mm along each axis of the mask, in which rotation and elastic deformation act; default: pixels.
        outside: label of what moves in from beyond the image; None: its border goes on.
        zero_mean: the image has mean 0 and SD 1, not 0 … 1.
        channel_dropout: probability, for each channel, that it shows nothing but its mean; one at least is kept.
        settings: in place of the defaults, which are the guide's strengths; the keys of ``training.augmentation`` in a
            plan, such as ``elastic=0.5, elastic_alpha=2000, rotation_degrees=30, flips=["width"], noise=0``.

    Raises:
        PlanError: an unknown setting, or a value that cannot be.
        CpfnetError: when called: see the module.

    Example:
        >>> augment = cpfnet.augment.Augment(flips=["width"], outside=255)
        >>> image, mask = augment(image, mask, np.random.default_rng(seed))
    """

    def __init__(
        self,
        *,
        spacing: Sequence[float] | None = None,
        outside: int | None = None,
        zero_mean: bool = False,
        channel_dropout: float = 0.0,
        **settings: Any,
    ) -> None:
        self.settings = validate(Augmentation, settings, where="cpfnet.augment")
        if outside is not None and not 0 <= outside <= 255:
            raise CpfnetError(f"outside = {outside!r}", fix="give a label from 0 to 255, or None")
        if not 0 <= channel_dropout <= 1:
            raise CpfnetError(f"channel_dropout = {channel_dropout!r}", fix="give a probability from 0 to 1")
        self.spacing, self.outside, self.zero_mean = spacing, outside, zero_mean
        self.channel_dropout = channel_dropout

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
        """Image ``(channels, [depth,] height, width)`` and mask ``([depth,] height, width)``, changed."""
        image, codes, kind = _checked(image, mask, rng, self.spacing)
        names = [str(channel) for channel in range(len(image))]
        intensity = ZScore() if self.zero_mean else MinMax()
        settings = self.settings.model_copy(update={"channel_dropout": dict.fromkeys(names, self.channel_dropout)})
        channels = [Channel(name=name, intensity=intensity) for name in names]

        def piece(margin: tuple[int, ...]) -> Sample:
            around = [(m, m) for m in margin]
            if self.outside is None:
                further = np.pad(codes, around, mode="edge")
            else:
                further = np.pad(codes, around, constant_values=self.outside)
            return np.pad(image, [(0, 0), *around], mode="edge"), further

        changed, moved = SampleAugmenter(settings, codes.shape, spacing=self.spacing, channels=channels)(piece, rng)
        return changed, moved.astype(kind)


def _checked(image: Any, mask: Any, rng: Any, spacing: Any) -> tuple[np.ndarray, np.ndarray, np.dtype]:
    """The image as float32, the mask as uint8, and the mask's own type."""
    image, mask = np.asarray(image), np.asarray(mask)
    if not isinstance(rng, np.random.Generator):
        raise CpfnetError(f"rng is a {type(rng).__name__}", fix="give numpy.random.default_rng(seed)")
    if mask.ndim not in (2, 3) or image.shape[1:] != mask.shape or not image.size:
        raise CpfnetError(
            f"an image of {image.shape} and a mask of {mask.shape}",
            fix="give (channels, [depth,] height, width) and ([depth,] height, width); a grey image as image[None]",
        )
    if image.dtype.kind != "f":
        raise CpfnetError(f"the image holds {image.dtype}", fix="normalise it first: image.astype('float32') / 255")
    if not np.isfinite(image).all():
        raise CpfnetError("the image holds NaN or infinite values", fix="look for what made them")
    if mask.dtype.kind not in "biu" or mask.min() < 0 or mask.max() > 255:
        found = f"{mask.dtype} from {mask.min()} to {mask.max()}"
        raise CpfnetError(f"the mask holds {found}", fix="give labels as integers from 0 to 255")
    if spacing is not None and (len(spacing) != mask.ndim or not all(0 < step < math.inf for step in spacing)):
        raise CpfnetError(
            f"spacing = {tuple(spacing)} for {mask.ndim} axes", fix="give one number above 0 for each axis of the mask"
        )
    return image.astype(np.float32, copy=False), mask.astype(np.uint8), mask.dtype


def _only(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, **on: Any) -> Sample:
    return Augment(**{**dict.fromkeys(_PROBABILITIES, 0.0), **on})(image, mask, rng)


def elastic(
    image: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    *,
    alpha: float = 1000.0,
    sigma: float = 30.0,
    spacing: Sequence[float] | None = None,
    outside: int | None = None,
) -> Sample:
    """The guide's elastic deformation: uniform noise, smoothed by a Gaussian of ``sigma``, times ``alpha``, in pixels.

    It has the statistics of the guide's field (RMS alpha / (sigma·√(12π)), 5.4 pixels by default). Where the longest
    side is below 256 (pixels; mm with ``spacing``), both shrink with it.

    Args:
        image, mask, rng, outside: see the module.
        alpha, sigma: gain and smoothness.
        spacing: mm along each axis of the mask; the field is then the same in mm along all of them.

    Source:
        Simard et al., ICDAR 2003.

    Example:
        >>> image, mask = cpfnet.augment.elastic(image, mask, np.random.default_rng(0))
    """
    options = {"elastic_alpha": alpha, "elastic_sigma": sigma}
    return _only(image, mask, rng, elastic=1.0, spacing=spacing, outside=outside, **options)


def rotation(
    image: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    *,
    degrees: float = 15.0,
    spacing: Sequence[float] | None = None,
    outside: int | None = None,
) -> Sample:
    """Turned about its centre by up to ``degrees`` either way (at most 180), evenly; volumes about all three axes.

    Volumes with slices more than 3 pixels apart turn within their slices alone. Arguments as in `elastic`.

    Example:
        >>> image, mask = cpfnet.augment.rotation(image, mask, np.random.default_rng(0), degrees=30)
    """
    return _only(image, mask, rng, rotation=1.0, rotation_degrees=degrees, spacing=spacing, outside=outside)


def scale(
    image: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    *,
    factors: tuple[float, float] = (0.8, 1.2),
    outside: int | None = None,
) -> Sample:
    """Content smaller or larger about the centre, by a factor between the two, all ratios as likely.

    Example:
        >>> image, mask = cpfnet.augment.scale(image, mask, np.random.default_rng(0), factors=(0.7, 1.4))
    """
    return _only(image, mask, rng, scale=1.0, scale_factors=factors, outside=outside)


def flip(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, axes: Sequence[str] = ("width",)) -> Sample:
    """Mirrored along each of ``axes`` ("depth", "height", "width") with probability ½.

    Example:
        >>> image, mask = cpfnet.augment.flip(image, mask, np.random.default_rng(0), axes=["height", "width"])
    """
    return _only(image, mask, rng, flips=tuple(axes))


def quarter_turns(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Turned in the plane by 0°, 90°, 180° or 270°, equally often; oblong images by 0° or 180°.

    Example:
        >>> image, mask = cpfnet.augment.quarter_turns(image, mask, np.random.default_rng(0))
    """
    return _only(image, mask, rng, quarter_turns=True)


def illumination(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, zero_mean: bool = False) -> Sample:
    """Uneven light, as in fundus photographs: a smooth field, mostly 0.67 … 1.5, times the image.

    Example:
        >>> image, mask = cpfnet.augment.illumination(image, mask, np.random.default_rng(0))
    """
    return _only(image, mask, rng, illumination=1.0, zero_mean=zero_mean)


def colour(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Each channel with its own shift, up to 0.2 of its SD, and contrast, e^−0.2 … e^0.2.

    Example:
        >>> image, mask = cpfnet.augment.colour(image, mask, np.random.default_rng(0))
    """
    return _only(image, mask, rng, colour=1.0)


def channel_dropout(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, probability: float = 0.5
) -> Sample:
    """Each channel shows, with this probability, nothing but its mean; where that would be all, none does.

    Example:
        >>> image, mask = cpfnet.augment.channel_dropout(image, mask, np.random.default_rng(0))
    """
    return _only(image, mask, rng, channel_dropout=probability)


def low_resolution(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, spacing: Sequence[float] | None = None
) -> Sample:
    """As if each channel had been taken at half to all of its resolution; thick slices stay whole.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021.

    Example:
        >>> image, mask = cpfnet.augment.low_resolution(image, mask, np.random.default_rng(0))
    """
    return _only(image, mask, rng, low_resolution=1.0, spacing=spacing)


def gamma(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, inverted: bool = False) -> Sample:
    """Brighter or darker mid-tones: x^γ, γ = 0.7 … 1.5, over the image's own range; ``inverted``: of the negative.

    Example:
        >>> image, mask = cpfnet.augment.gamma(image, mask, np.random.default_rng(0))
    """
    return _only(image, mask, rng, **{"inverted_gamma" if inverted else "gamma": 1.0})


def brightness(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """All values shifted by up to 0.3 of their SD, either way.

    Example:
        >>> image, mask = cpfnet.augment.brightness(image, mask, np.random.default_rng(0))
    """
    return _only(image, mask, rng, brightness=1.0)


def contrast(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Distances from the mean times 0.75 … 1.3, clipped to the image's range.

    Example:
        >>> image, mask = cpfnet.augment.contrast(image, mask, np.random.default_rng(0))
    """
    return _only(image, mask, rng, contrast=1.0)


def blur(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """A Gaussian of 0.25 … 1.5 pixels along each axis.

    Example:
        >>> image, mask = cpfnet.augment.blur(image, mask, np.random.default_rng(0))
    """
    return _only(image, mask, rng, blur=1.0)


def noise(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, zero_mean: bool = False) -> Sample:
    """Gaussian noise of an SD drawn from 0 … 0.05, with ``zero_mean`` from 0 … 0.2.

    Example:
        >>> image, mask = cpfnet.augment.noise(image, mask, np.random.default_rng(0))
    """
    return _only(image, mask, rng, noise=1.0, zero_mean=zero_mean)
