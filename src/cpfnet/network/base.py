"""What every network promises about its input and its output."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, distributed, nn

from cpfnet.errors import NetworkError

SMALLEST = 32
"""Smallest input size along each axis, pixels, of networks that name no other."""


def check_arguments(in_channels: int, classes: int, spatial_dims: int) -> None:
    """Refuse arguments that no network can have.

    Raises:
        NetworkError: fewer than one channel or class, or neither 2 nor 3 spatial axes.
    """
    for name, value in (("in_channels", in_channels), ("classes", classes)):
        if not isinstance(value, int) or value < 1:
            raise NetworkError(f"{name} = {value!r}", fix=f"give {name} as a whole number of at least 1")
    if spatial_dims not in (2, 3):
        raise NetworkError(f"spatial_dims = {spatial_dims!r}", fix="give 2 (images, slices) or 3 (volumes)")


def check_builder(name: str, builder: Any, *, wanted: str, counts: int) -> None:
    """Refuse a builder that cannot be called with so many counts of channels and ``spatial_dims``.

    Raises:
        NetworkError: it takes other arguments than ``wanted`` says.
    """
    try:
        signature = inspect.signature(builder)
    except (TypeError, ValueError):
        raise NetworkError(f"{name!r} is no function", fix=f"give one that takes {wanted}") from None
    try:
        signature.bind(*[1] * counts, spatial_dims=2)
    except TypeError as error:
        raise NetworkError(f"the builder of {name!r} takes {signature}: {error}", fix=f"let it take {wanted}") from None


class SegmentationNetwork(nn.Module):
    """Base of the networks: ``(N, in_channels, *spatial)`` in, logits ``(N, classes, *spatial)`` of the same size out.

    Attributes:
        in_channels: channels of the input.
        classes: planes of the output; the softmax or sigmoid belongs to the loss and to inference.
        spatial_dims: 2 for ``(height, width)``, 3 for ``(depth, height, width)``.
        smallest: input size along each axis, pixels: `SMALLEST`, or less where a network was built for flatter patches.
    """

    def __init__(self, in_channels: int, classes: int, spatial_dims: int) -> None:
        check_arguments(in_channels, classes, spatial_dims)
        super().__init__()
        self.in_channels = in_channels
        self.classes = classes
        self.spatial_dims = spatial_dims
        self.smallest = (SMALLEST,) * spatial_dims

    def check_input(self, x: Tensor) -> None:
        """Refuse an input that the network cannot take.

        Raises:
            NetworkError: wrong rank, channel count, or a size below `smallest`; says what was given and what would do.
        """
        axes = ("depth", "height", "width")[-self.spatial_dims :]
        wanted = f"({', '.join(('batch', str(self.in_channels), *axes))})"
        given = "×".join(map(str, x.shape))
        if x.ndim != self.spatial_dims + 2:
            raise NetworkError(
                f"the input has {x.ndim} axes ({given}); this {self.spatial_dims}-D network takes {wanted}",
                fix="add or drop axes, or build the network with spatial_dims=2 for images and 3 for volumes",
            )
        if x.shape[1] != self.in_channels:
            raise NetworkError(
                f"the input has {x.shape[1]} channels ({given}); this network takes {wanted}",
                fix=f"give {self.in_channels} channels, or build the network with in_channels={x.shape[1]}",
            )
        if any(size < least for size, least in zip(x.shape[2:], self.smallest, strict=True)):
            enough = "×".join(str(max(sizes)) for sizes in zip(x.shape[2:], self.smallest, strict=True))
            least = "×".join(map(str, self.smallest)) if len({*self.smallest}) > 1 else f"{self.smallest[0]}"
            raise NetworkError(
                f"the input is {'×'.join(map(str, x.shape[2:]))}; every axis needs at least {least} pixels",
                fix=f"pad it to {enough}",
            )

    def check_statistics(self, x: Tensor, deepest: Iterable[int]) -> None:
        """Refuse training in which batch normalisation would see one value per channel (of all processes together).

        Args:
            x: the input, ``(N, channels, *spatial)``.
            deepest: spatial size of the deepest feature map.

        Raises:
            NetworkError: the batch is one sample, of which one pixel is left at the deepest level.
        """
        shared = distributed.is_available() and distributed.is_initialized()  # processes that share a batch
        if self.training and x.shape[0] * math.prod(deepest) == 1 and not shared:
            raise NetworkError(
                f"training on one sample of {'×'.join(map(str, x.shape[2:]))} leaves one value per channel at the "
                "deepest level, and batch normalisation needs at least two",
                fix="use a batch of 2 or more, or larger patches",
            )
