"""Encoders by name, what every one of them promises, and how their maps enter CPFNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from cpfnet.errors import CpfnetError, NetworkError, redacted_message
from cpfnet.network.base import check_builder
from cpfnet.network.blocks import conv_bn_relu
from cpfnet.network.encoder import BLOCKS, PAPERS, WIDTH, ResNetEncoder
from cpfnet.registry import Registry

LEVELS = 5


class Encoder(Protocol):
    """What CPFNet asks of an encoder, beside being a `torch.nn.Module`.

    Called with ``(N, in_channels, *spatial)`` it gives five maps, c1 … c5, finest first: the k-th is
    ``(N, channels[k], *size)`` with every side that of the input divided by ``strides[k]``, *rounded up*. Values are
    those after an activation, as a ResNet's.

    Attributes:
        channels: five numbers, of c1 … c5.
        strides: five numbers, input pixels per pixel of c1 … c5, the same along all axes and none below the one before
            it. `CPFNetHR` needs c1 at 2.

    Example:
        >>> class Pyramid(torch.nn.Module):
        ...     channels, strides = (16, 16, 32, 64, 128), (2, 4, 8, 16, 32)
        ...
        ...     def __init__(self, in_channels, *, spatial_dims=2):
        ...         super().__init__()
        ...         counts = (in_channels, *self.channels)
        ...         self.steps = torch.nn.ModuleList(
        ...             torch.nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(counts)
        ...         )
        ...
        ...     def forward(self, x):
        ...         maps = []
        ...         for step in self.steps:
        ...             maps.append(x := step(x).relu())
        ...         return maps
        >>> network = cpfnet.CPFNet(3, 2, encoder=Pyramid(3))
    """

    channels: Sequence[int]
    strides: Sequence[int]

    def __call__(self, x: Tensor) -> Sequence[Tensor]: ...


Builder = Callable[..., nn.Module]
"""``builder(in_channels, *, spatial_dims)`` → an `Encoder`."""

RESNETS = {f"resnet{depth}": depth for depth in BLOCKS}
"""Names of the encoders that come with the package, for which there are ImageNet weights → their depths."""

DEFAULT = f"resnet{PAPERS}"
"""The paper's."""

ENCODERS: Registry[Builder] = Registry(
    "encoder",
    "cpfnet.encoders",
    error=NetworkError,
    check=partial(check_builder, wanted="(in_channels, *, spatial_dims)", counts=1),
    where="network.options.encoder",
)
"""All that can be named."""

for name, depth in RESNETS.items():
    ENCODERS.register(name, partial(ResNetEncoder, depth=depth))


def register(name: str, builder: Builder) -> None:
    """Let an encoder be named: as ``encoder=`` of the networks, and as ``network.options.encoder`` of a plan.

    Args:
        name: what to call it.
        builder: ``builder(in_channels, *, spatial_dims)`` → an `Encoder`.

    Raises:
        NetworkError: the name is taken, or the builder cannot be called so.

    Example:
        >>> cpfnet.network.encoder_zoo.register("pyramid", Pyramid)
        >>> cpfnet.CPFNet(3, 2, encoder="pyramid")
    """
    ENCODERS.register(name, builder)


def build_encoder(
    encoder: str | nn.Module,
    in_channels: int,
    *,
    spatial_dims: int,
    stem_stride: int = 2,
    width: int = WIDTH,
    allow_import: Sequence[str] = (),
) -> Any:
    """The encoder of a name; or the one given, once it is known to promise what an `Encoder` does.

    Args:
        encoder: the name of one, ``module:name`` of a module that is allowed, or an `Encoder`.
        in_channels: channels of its input.
        spatial_dims: 2 or 3.
        stem_stride, width: of `ResNetEncoder`; others have strides and channels of their own.
        allow_import: modules that may be imported for it.

    Raises:
        NetworkError: no such encoder, one that promises too little, or a stem stride for one that knows none.
        CodeError: its module is not allowed or cannot be imported.
    """
    resnet = isinstance(encoder, str) and encoder in RESNETS
    if stem_stride != 2 and not resnet:
        raise NetworkError(
            f"stem_stride = {stem_stride!r} is for {', '.join(RESNETS)}",
            fix="leave it out: others have strides of their own",
        )
    if not isinstance(encoder, str):
        return _checked(encoder, type(encoder).__name__)
    builder = ENCODERS.find(encoder, allow_import)
    options: dict[str, Any] = {"stem_stride": stem_stride, "width": width} if resnet else {}
    try:
        built = builder(in_channels, spatial_dims=spatial_dims, **options)
    except (CpfnetError, ImportError):
        raise
    except Exception as error:  # whatever its own code says
        raise NetworkError(
            f"the encoder {encoder} cannot be built: {redacted_message(error)}", fix="correct it, or choose another one"
        ) from error
    return _checked(built, encoder)


def _checked(encoder: Any, name: str) -> nn.Module:
    """Refuse what promises too little."""
    if not isinstance(encoder, nn.Module):
        raise NetworkError(
            f"encoder = {encoder!r}", fix=f"give the name of one ({', '.join(ENCODERS.names())}) or a torch.nn.Module"
        )
    for attribute in ("channels", "strides"):
        values: Any = getattr(encoder, attribute, None)
        numbers = isinstance(values, (list, tuple)) and all(isinstance(n, int) and n > 0 for n in values)
        if not numbers or len(values) != LEVELS:
            raise NetworkError(
                f"the encoder {name} has {attribute} {values!r}", fix=f"let it have {LEVELS} whole numbers above 0"
            )
    strides: Any = encoder.strides
    if list(strides) != sorted(strides):
        raise NetworkError(f"the encoder {name} has strides {strides!r}", fix="let it give its maps finest first")
    return encoder


class Neck(nn.Module):
    """The maps of an encoder, each with the channels that the network asks for.

    A map that has other ones passes a 1×1 conv/BN/ReLU; of the paper's encoder none does, so there is no layer.

    Args:
        spatial_dims: 2 or 3.
        encoder: see `Encoder`.
        channels: wanted, of c1 … c5.
    """

    def __init__(self, spatial_dims: int, encoder: Any, channels: Sequence[int]) -> None:
        super().__init__()
        self.given = tuple(encoder.channels)
        self.projections = nn.ModuleList(
            nn.Identity() if own == wanted else conv_bn_relu(spatial_dims, own, wanted, 1)
            for own, wanted in zip(encoder.channels, channels, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """c1 … c5 as the encoder gives them → as the network takes them.

        Raises:
            NetworkError: they are not what the encoder's ``channels`` promise.
        """
        found = tuple(one.shape[1] for one in maps)
        if found != self.given:
            raise NetworkError(
                f"the encoder gave maps of {found} channels, and promises {self.given}",
                fix="return c1 … c5, each (N, channels, *spatial), as `channels` says",
            )
        return [project(one) for project, one in zip(self.projections, maps, strict=True)]
