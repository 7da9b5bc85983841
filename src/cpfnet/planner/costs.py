"""What learning from a patch takes: memory and arithmetic of each network, as measured.

The figures were counted where PyTorch is (`python -m benchmarks memory` prints them, a test counts them again); here
they are a table, since planning works without PyTorch, for machines that have none yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """Of one input pixel or voxel.

    Attributes:
        full: bytes kept for the gradients in float32.
        half: the same where autocast computes in bfloat16 or float16.
        flops: floating-point operations of a pass forward.
    """

    full: int
    half: int
    flops: int


COSTS = {
    ("cpfnet", 2): Cost(3248, 1759, 250_000),
    ("cpfnet-hr", 2): Cost(3504, 1888, 375_000),
    ("cpfnet-guide", 2): Cost(1840, 1041, 324_000),
    ("unet", 2): Cost(6220, 3717, 1_558_000),
    ("attention-unet", 2): Cost(6079, 3160, 1_288_000),
    ("unet++", 2): Cost(8680, 5083, 998_000),
    ("segresnet", 2): Cost(3028, 1538, 474_000),
    ("dynunet", 2): Cost(2510, 1432, 455_000),
    ("dynunet-res", 2): Cost(2761, 1563, 459_000),
    ("mednext", 2): Cost(10540, 5291, 270_000),
    ("resnet34-unet", 2): Cost(1470, 872, 218_000),
    ("cpfnet", 3): Cost(1352, 791, 133_000),
    ("cpfnet-hr", 3): Cost(1096, 663, 295_000),
    ("cpfnet-guide", 3): Cost(640, 451, 206_000),
    ("unet", 3): Cost(4388, 2917, 2_048_000),
    ("attention-unet", 3): Cost(4267, 2179, 1_485_000),
    ("unet++", 3): Cost(7028, 4287, 1_842_000),
    ("segresnet", 3): Cost(2006, 1012, 552_000),
    ("dynunet", 3): Cost(1707, 869, 455_000),
    ("dynunet-res", 3): Cost(1878, 956, 456_000),
    ("mednext", 3): Cost(7213, 3609, 121_000),
    ("resnet34-unet", 3): Cost(701, 431, 141_000),
}
"""By network and spatial axes, at full width. A network that is not here (a user's own, say) is taken for the dearest
of them: it cannot be measured without PyTorch, and too small a patch or batch trains, where too large a one does
not."""

ENCODERS = {
    ("resnet18", 2): Cost(-200, -139, -74_000),
    ("resnet34", 2): Cost(0, 0, 0),
    ("resnet50", 2): Cost(1130, 579, 25_000),
    ("resnet101", 2): Cost(1947, 1059, 173_000),
    ("resnet18", 3): Cost(-28, -29, -22_000),
    ("resnet34", 3): Cost(0, 0, 0),
    ("resnet50", 3): Cost(190, 90, -12_000),
    ("resnet101", 3): Cost(242, 134, 7_000),
}
"""What another encoder (with its neck) adds to a row of `ENCODED`. One that is not here, a user's own, is taken for the
dearest of them."""

ENCODED = ("cpfnet", "cpfnet-hr", "cpfnet-guide")
"""Networks that take any encoder."""

FLAT = ((1.0, 1.0), (1.25, 1.42), (1.37, 1.5), (1.43, 1.5))
"""`dynunet` keeps, and computes, so many times as much where slices lie so far apart that the depth is not halved at
none, one, two, three or more of the first levels."""

MEDNEXT = {"small": (1.0, 1.0), "base": (1.2, 1.61), "medium": (1.8, 2.48), "large": (3.28, 6.85)}
"""How many times as much as the small one a `mednext` keeps and computes, in 2-D; in 3-D it is less."""

FULL_WIDTH = 64
"""Channels of the first level that the rows of cpfnet and cpfnet-hr stand for; bytes follow the width, operations its
square."""

CLASS_BYTES = 24
"""For one pixel of one plane of the output: 16 … 18 that the loss keeps, the logits and their gradient."""

TRANSIENT = 1.25
"""Times what is kept: gradients of maps on their way back, and what the allocator cannot fill."""

FIXED_BYTES = 2 * GIB
"""Weights, gradients, optimiser, libraries and what their convolutions work in."""

USABLE = 0.8
"""Share of the free memory that is planned with."""


def flat_levels(spacing: Sequence[float | None] | None) -> int:
    """Levels at which `dynunet` leaves the depth as it is: slices lie more than twice as far apart as pixels there."""
    if spacing is None or spacing[0] is None:
        return 0
    pixel = min(n for n in spacing[1:] if n is not None)
    return max(0, math.ceil(math.log2(spacing[0] / (2 * pixel)) - 1e-9))


def cost(
    network: str,
    dims: int,
    *,
    spacing: Sequence[float | None] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Cost:
    """Of a pixel; ``spacing`` of a patch in 3-D, ``options`` of the network."""
    rows = [row for (_, axes), row in COSTS.items() if axes == dims]
    dearest = Cost(*(max(getattr(row, name) for row in rows) for name in ("full", "half", "flops")))
    row = COSTS.get((network, dims), dearest)
    if network in ENCODED:
        more = ENCODERS.get((str((options or {}).get("encoder", "resnet34")), dims), ENCODERS["resnet101", dims])
        row = Cost(row.full + more.full, row.half + more.half, row.flops + more.flops)
    kept, computed = 1.0, 1.0
    if network in ("cpfnet", "cpfnet-hr"):
        kept = _width(options) / FULL_WIDTH
        computed = kept**2
    elif network in ("dynunet", "dynunet-res") and dims == 3:
        kept, computed = FLAT[min(flat_levels(spacing), len(FLAT) - 1)]
    elif network == "mednext":
        kept, computed = MEDNEXT.get(str((options or {}).get("size", "small")), MEDNEXT["large"])
    return Cost(round(row.full * kept), round(row.half * kept), round(row.flops * computed))


def patch_bytes(
    network: str,
    patch: Sequence[int],
    outputs: int,
    *,
    half: bool,
    spacing: Sequence[float | None] | None = None,
    options: Mapping[str, Any] | None = None,
) -> float:
    """Memory that learning from one patch takes beside `FIXED_BYTES`.

    Args:
        network: its name.
        patch: 2 or 3 sizes.
        outputs: planes of the network.
        half: computed in half precision, as on every GPU.
        spacing: of the patch; of voxels alone it matters.
        options: the network's.
    """
    found = cost(network, len(patch), spacing=spacing, options=options)
    return math.prod(patch) * TRANSIENT * ((found.half if half else found.full) + CLASS_BYTES * outputs)


def patch_flops(
    network: str,
    patch: Sequence[int],
    *,
    spacing: Sequence[float | None] | None = None,
    options: Mapping[str, Any] | None = None,
) -> float:
    """Floating-point operations of one pass forward of one patch."""
    return math.prod(patch) * float(cost(network, len(patch), spacing=spacing, options=options).flops)


def _width(options: Mapping[str, Any] | None) -> int:
    width = (options or {}).get("width", FULL_WIDTH)
    return width if isinstance(width, int) and width > 0 else FULL_WIDTH


def room(free: int) -> float:
    """Of so many free bytes, those that patches may take."""
    return max(0.0, USABLE * free - FIXED_BYTES)
