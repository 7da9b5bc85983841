"""Networks by name: ours, the field's baselines from MONAI, and the user's own, all under one interface.

Every network takes ``(N, in_channels, *spatial)`` of any size from 32 pixels and returns logits ``(N, classes,
*spatial)`` of that size; it knows ``in_channels``, ``classes`` and ``spatial_dims``.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from monai.networks.nets.attentionunet import AttentionUnet
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.flexible_unet import FlexibleUNet
from monai.networks.nets.segresnet import SegResNet
from torch import Tensor, nn

from cpfnet.errors import CpfnetError, NetworkError, redacted_message
from cpfnet.network.base import SMALLEST, SegmentationNetwork, check_arguments, check_builder
from cpfnet.network.blocks import crop_or_extend
from cpfnet.network.cpfnet import CPFNet
from cpfnet.network.dynunet import DeeplySupervisedDynUNet
from cpfnet.network.encoder import ResNetEncoder
from cpfnet.network.encoder_zoo import RESNETS, build_encoder
from cpfnet.network.guide import GuideCPFNet
from cpfnet.network.hr import CPFNetHR
from cpfnet.network.mednext import SupervisedMedNeXt
from cpfnet.registry import Registry

Builder = Callable[..., nn.Module]
"""``builder(in_channels, classes, *, spatial_dims, **options)``; its keyword-only arguments are the options."""

FLATTEST = 8
"""Fewest slices of a patch in 3-D for a network that halves an axis only while pixels remain."""

NETWORKS: Registry[Builder] = Registry(
    "network",
    "cpfnet.networks",
    error=NetworkError,
    check=partial(check_builder, wanted="(in_channels, classes, *, spatial_dims, …)", counts=2),
    where="network.name",
)
"""All that can be named."""

ENCODED = ("cpfnet", "cpfnet-hr", "cpfnet-guide")
"""Networks that take any encoder, as the option ``encoder``."""


def register(name: str, builder: Builder) -> None:
    """Let a network be built by name.

    Args:
        name: how plans and commands call it.
        builder: ``builder(in_channels, classes, *, spatial_dims, **options)`` → module from images to logits of the
            same size; wrap what needs divisible sizes in `AnySize`. Keyword-only arguments are the options it takes.
            ImageNet weights can be loaded where it contains a `cpfnet.network.encoder.ResNetEncoder`.

    Raises:
        NetworkError: the name is taken, or the builder cannot be called so.
    """
    NETWORKS.register(name, builder)


def names() -> list[str]:
    """All names, ours first; what installed packages offer is not loaded for it."""
    return NETWORKS.names()


def is_shipped(name: str, options: Mapping[str, Any]) -> bool:
    """Does all code of a network come with this package? Which operations it runs depends then on no value it sees."""
    return name in SHIPPED and (name not in ENCODED or options.get("encoder", "resnet34") in RESNETS)


def build(
    name: str,
    in_channels: int,
    classes: int,
    *,
    spatial_dims: int = 2,
    hints: Mapping[str, Any] | None = None,
    allow_import: Sequence[str] = (),
    **options: Any,
) -> nn.Module:
    """Build a network by name, with random weights.

    Args:
        name: one of `names`, or ``module:name`` of a module that is allowed.
        in_channels: channels of the input.
        classes: planes of the output.
        spatial_dims: 2 or 3.
        hints: options for networks that know them, such as ``patch`` of ``dynunet``; ``options`` win.
        allow_import: modules that may be imported, for a network or an encoder that is named as ``module:name``.
        options: the network's own, such as ``stem_stride`` of ``cpfnet``.

    Raises:
        NetworkError: unknown name or option (says what is known), or a value that cannot be.
        CodeError: a module that is not allowed, cannot be imported, or does not define what is named.
    """
    builder = NETWORKS.find(name, allow_import)
    check_arguments(in_channels, classes, spatial_dims)
    parameters = inspect.signature(builder).parameters.values()
    accepted = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "spatial_dims"]
    unknown = [option for option in options if option not in accepted]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        near = difflib.get_close_matches(unknown[0], accepted, n=1)
        raise NetworkError(
            f"{name} has no option {', '.join(map(repr, unknown))}",
            fix=(f"did you mean {near[0]!r}? " if near else "")
            + (f"its options are {', '.join(accepted)}" if accepted else "it has no options"),
        )
    if name in ENCODED and isinstance(encoder := options.get("encoder"), str) and encoder not in RESNETS:
        own = build_encoder(encoder, in_channels, spatial_dims=spatial_dims, allow_import=allow_import)
        options["encoder"] = own
    known = {key: value for key, value in (hints or {}).items() if key in accepted}
    try:
        network = builder(in_channels, classes, spatial_dims=spatial_dims, **known | options)
    except (CpfnetError, ImportError):
        raise
    except Exception as error:  # whatever a library says to values that cannot be
        said = f"{name} cannot be built with its options: {redacted_message(error)}"
        raise NetworkError(said, fix="correct network.options") from error
    for attribute, value in (("in_channels", in_channels), ("classes", classes), ("spatial_dims", spatial_dims)):
        setattr(network, attribute, value)  # a user's own need not know them
    return network


class AnySize(SegmentationNetwork):
    """A network that needs sizes divisible by something, made to take any.

    The input is continued past its far edges by repeating them, up to multiples of ``multiple``; the logits are cut
    back. A network that is deeply supervised gives several in training, full size first: smaller ones are cut to their
    share of the input, rounded up.

    Args:
        network: from ``(N, in_channels, *spatial)`` to logits.
        in_channels: channels of the input.
        classes: planes of the output.
        spatial_dims: 2 or 3.
        multiple: what sizes must be divisible by, for all axes or each.
        at_least: multiples that an axis must hold; 2 for instance normalisation at the deepest level.
        smallest: size of each axis below which an input is refused; default: `SMALLEST`.
    """

    def __init__(
        self,
        network: nn.Module,
        in_channels: int,
        classes: int,
        spatial_dims: int,
        multiple: int | Sequence[int],
        *,
        at_least: int = 1,
        smallest: Sequence[int] | None = None,
    ) -> None:
        super().__init__(in_channels, classes, spatial_dims)
        if smallest is not None:
            self.smallest = tuple(smallest)
        self.network = network
        self.multiple = (multiple,) * spatial_dims if isinstance(multiple, int) else tuple(multiple)
        self.at_least = at_least

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """``(N, in_channels, *spatial)`` → logits ``(N, classes, *spatial)``; in training perhaps a list of them.

        Raises:
            NetworkError: wrong rank or channel count, or an axis below 32 pixels, or one value per channel in training.
        """
        self.check_input(x)
        size = x.shape[2:]
        counts = [max((n + m - 1) // m, self.at_least) for n, m in zip(size, self.multiple, strict=True)]
        self.check_statistics(x, counts)
        whole = [count * m for m, count in zip(self.multiple, counts, strict=True)]
        logits = self.network(crop_or_extend(x, whole))
        if not isinstance(logits, (list, tuple)):
            return crop_or_extend(logits, size)
        if len(logits) == 1 or not self.training:
            return crop_or_extend(logits[0], size)
        return [
            crop_or_extend(one, [-(-n * m // w) for n, m, w in zip(size, one.shape[2:], whole, strict=True)])
            for one in logits
        ]


def _widths(widths: Sequence[int], count: int | None = None) -> tuple[int, ...]:
    """Channel counts as given by a user: so many, or two and more."""
    good = isinstance(widths, (list, tuple)) and all(isinstance(w, int) and w > 0 for w in widths)
    if not good or len(widths) < 2 or len(widths) != (count or len(widths)):
        raise NetworkError(
            f"widths = {widths!r}", fix=f"give {count or 'two or more'} whole numbers above 0, finest level first"
        )
    return tuple(widths)


def _numbers(name: str, values: Sequence[float], count: int, least: float) -> list[float]:
    """One number an axis, as given by a user."""
    good = isinstance(values, (list, tuple)) and all(isinstance(v, (int, float)) and v >= least for v in values)
    if not good or len(values) != count:
        raise NetworkError(f"{name} = {values!r}", fix=f"give {count} numbers, each at least {least:g}")
    return list(values)


def _unet(
    in_channels: int, classes: int, *, spatial_dims: int, widths: Sequence[int] = (64, 128, 256, 512, 1024)
) -> nn.Module:
    """U-Net with the widths of 2015 (Ronneberger et al., MICCAI 2015), padded convolutions and instance norm."""
    features = _widths(widths, 5)
    network = BasicUNet(spatial_dims, in_channels, classes, (*features, features[0]))
    return AnySize(network, in_channels, classes, spatial_dims, 16)


def _attention_unet(
    in_channels: int, classes: int, *, spatial_dims: int, widths: Sequence[int] = (64, 128, 256, 512, 1024)
) -> nn.Module:
    """Attention U-Net (Oktay et al., MIDL 2018)."""
    channels = _widths(widths)
    strides = (2,) * (len(channels) - 1)
    network = AttentionUnet(spatial_dims, in_channels, classes, channels, strides)
    return AnySize(network, in_channels, classes, spatial_dims, 2 ** len(strides))


def _unet_plus_plus(
    in_channels: int, classes: int, *, spatial_dims: int, widths: Sequence[int] = (32, 64, 128, 256, 512)
) -> nn.Module:
    """UNet++ with its paper's widths (Zhou et al., DLMIA 2018), without deep supervision."""
    features = _widths(widths, 5)
    network = BasicUNetPlusPlus(spatial_dims, in_channels, classes, (*features, features[0]))
    # Heads of the nodes that only deep supervision reads: they would be weights without a gradient.
    for node in ("final_conv_0_1", "final_conv_0_2", "final_conv_0_3"):
        setattr(network, node, nn.Identity())
    return AnySize(network, in_channels, classes, spatial_dims, 16)


def _segresnet(in_channels: int, classes: int, *, spatial_dims: int, width: int = 32) -> nn.Module:
    """SegResNet (Myronenko, BrainLes 2018) without its variational branch."""
    if not isinstance(width, int) or width < 8 or width % 8:
        raise NetworkError(f"width = {width!r}", fix="give a whole number divisible by 8 (groups of its normalisation)")
    network = SegResNet(spatial_dims, width, in_channels, classes)
    return AnySize(network, in_channels, classes, spatial_dims, 8)


def _switch(name: str, value: bool) -> bool:
    """True or false, as given by a user."""
    if not isinstance(value, bool):
        raise NetworkError(f"{name} = {value!r}", fix="give true or false")
    return value


def _dynunet(*, residual: bool) -> Callable[..., nn.Module]:
    """nnU-Net's network (Isensee et al., Nature Methods 2021), MONAI's `DynUNet`, as deep as the patch allows.

    ``residual``: with residual blocks in the encoder (Futrega et al., BrainLes 2021).

    As in nnU-Net, an axis is halved while at least 4 pixels remain and its spacing is within a factor of 2 of the
    finest; coarser axes get kernels of 1 until the others have caught up.

    ``patch``: training patch, default 256² or 64³. ``spacing``: of the patch, default the same on all axes. ``widths``:
    default 32, 64, … up to 512 in 2-D and 320 in 3-D. ``deep_supervision``: as there, training judges the decoder's
    levels above the lowest, too; predictions are made without.
    """

    def build(
        in_channels: int,
        classes: int,
        *,
        spatial_dims: int,
        patch: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
        widths: Sequence[int] | None = None,
        deep_supervision: bool = False,
    ) -> nn.Module:
        least = SMALLEST if spatial_dims == 2 else FLATTEST
        sizes = _numbers("patch", patch or ((256, 256) if spatial_dims == 2 else (64, 64, 64)), spatial_dims, least)
        steps = _numbers("spacing", spacing or [1.0] * spatial_dims, spatial_dims, 1e-6)
        kernels: list[list[int]] = []
        strides: list[list[int]] = [[1] * spatial_dims]
        while True:
            finest = min(steps)
            stride = [2 if size >= 8 and step <= 2 * finest else 1 for size, step in zip(sizes, steps, strict=True)]
            kernels.append([3 if step <= 2 * finest else 1 for step in steps])
            if max(stride) == 1:
                break
            strides.append(stride)
            sizes = [size // s for size, s in zip(sizes, stride, strict=True)]
            steps = [step * s for step, s in zip(steps, stride, strict=True)]
        filters = None if widths is None else _widths(widths)
        if filters is not None and len(filters) < len(strides):
            raise NetworkError(
                f"widths = {widths!r}", fix=f"this patch makes {len(strides)} levels; give as many widths"
            )
        kind = DeeplySupervisedDynUNet if _switch("deep_supervision", deep_supervision) else DynUNet
        network = kind(spatial_dims, in_channels, classes, kernels, strides, strides[1:], filters, res_block=residual)
        # MONAI lists every layer twice, here and inside `skip_layers`; once is enough for files and optimisers.
        del network.input_block, network.downsamples, network.bottleneck, network.upsamples
        multiple = [math.prod(axis) for axis in zip(*strides, strict=True)]
        smallest = [min(SMALLEST, int(size)) for size in patch] if patch else None
        return AnySize(network, in_channels, classes, spatial_dims, multiple, at_least=2, smallest=smallest)

    return build


def _mednext(
    in_channels: int, classes: int, *, spatial_dims: int, size: str = "small", deep_supervision: bool = False
) -> nn.Module:
    """MedNeXt (Roy et al., MICCAI 2023) with kernels of 3."""
    network = SupervisedMedNeXt(
        in_channels,
        classes,
        spatial_dims=spatial_dims,
        size=size,
        deep_supervision=_switch("deep_supervision", deep_supervision),
    )
    return AnySize(network, in_channels, classes, spatial_dims, 16)


def _resnet34_unet(in_channels: int, classes: int, *, spatial_dims: int) -> nn.Module:
    """U-Net on the same ResNet-34 encoder as CPFNet's: the paper's own baseline, with MONAI's decoder."""
    network = FlexibleUNet(in_channels, classes, "resnet34", spatial_dims=spatial_dims)
    # MONAI's encoder has parameter-free shortcuts, which ImageNet weights do not fit; its levels are the same as ours.
    network.encoder = ResNetEncoder(in_channels, spatial_dims=spatial_dims)
    return AnySize(network, in_channels, classes, spatial_dims, 32)


register("cpfnet", CPFNet)
register("cpfnet-hr", CPFNetHR)
register("cpfnet-guide", GuideCPFNet)
register("unet", _unet)
register("attention-unet", _attention_unet)
register("unet++", _unet_plus_plus)
register("segresnet", _segresnet)
register("dynunet", _dynunet(residual=False))
register("dynunet-res", _dynunet(residual=True))
register("mednext", _mednext)
register("resnet34-unet", _resnet34_unet)

SHIPPED = frozenset(NETWORKS.registered())
"""Networks that come with this package."""
