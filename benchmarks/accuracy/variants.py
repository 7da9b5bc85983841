"""What is compared: networks under the plan that `cpfnet plan` proposes for them, and the steps of the ablation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        name: in tables and as a folder.
        network: the name it is registered under.
        settings: ``section.key=value`` in which its plan differs from the proposed one.
    """

    name: str
    network: str
    settings: tuple[str, ...] = ()


NETWORKS = (
    Variant("cpfnet-hr", "cpfnet-hr"),
    Variant("cpfnet", "cpfnet"),
    Variant("unet", "unet"),
    Variant("unet-32", "unet", ("network.options={widths: [32, 64, 128, 256, 512]}",)),
    Variant("unet-16", "unet", ("network.options={widths: [16, 32, 64, 128, 256]}",)),
    Variant("dynunet", "dynunet"),
    Variant("resnet34-unet", "resnet34-unet"),
)
"""What is compared on every data set; `unet-32` and `unet-16` are a half and a quarter as wide, so that they take more
steps in the same time."""

PLAIN = Variant(
    "plain",
    "cpfnet",
    (
        "channels=[{name: red, intensity: {kind: zscore}}, {name: green, intensity: {kind: zscore}}, "
        "{name: blue, intensity: {kind: zscore}}]",
        "network.options={}",
        "spatial.longest=null",
        "training.augmentation.channel_dropout={}",
    ),
)
"""The paper's network at its full width, and colour photographs as most pipelines take them: each channel z-scored,
without local contrast, common scale and channel dropout; loss function and sampling stay those for vessels."""

ABLATION = (
    Variant("backbone", "cpfnet", ("network.options.gpg=false", "network.options.sapf=false")),
    Variant("gpg", "cpfnet", ("network.options.sapf=false",)),
    Variant("sapf", "cpfnet", ("network.options.gpg=false",)),
    Variant("cpfnet", "cpfnet"),
    Variant("stem-stride-1", "cpfnet", ("network.options.stem_stride=1",)),
    Variant("cpfnet-hr", "cpfnet-hr"),
    Variant("cpfnet-hr-no-gpg", "cpfnet-hr", ("network.options.gpg=false",)),
    Variant("cpfnet-hr-no-sapf", "cpfnet-hr", ("network.options.sapf=false",)),
)
"""The paper's ablation (backbone, + GPG, + SAPF, both) at the width that is proposed, then what goes beyond the paper,
and that without the paper's parts."""

SUPERVISED = Variant("dynunet-supervised", "dynunet", ("network.options.deep_supervision=true",))
"""nnU-Net's network with a loss at each level of its decoder, which no plan proposes yet."""

DECISIONS = {
    "drive": (
        Variant("cpfnet-hr-batch-2", "cpfnet-hr", ("training.batch=2", "training.accumulate=1")),
        Variant("cpfnet-hr-batch-12", "cpfnet-hr", ("training.batch=12", "training.accumulate=1")),
        Variant("cpfnet-hr-rate-low", "cpfnet-hr", ("training.learning_rate=0.0003",)),
        Variant("cpfnet-hr-rate-high", "cpfnet-hr", ("training.learning_rate=0.003",)),
    ),
    "hippocampus": (
        Variant(
            "dynunet-2d",
            "dynunet",
            (
                "spatial.mode=2d",
                "spatial.patch=[64, 64]",
                "spatial.spacing=[null, 1.0, 1.0]",
                "inference.tile=null",
                "training.batch=32",
                "training.accumulate=1",
            ),
        ),
    ),
}
"""What only a GPU can decide: each beside the network as it is proposed."""
