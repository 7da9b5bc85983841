"""What one or several Models find in one image: their probabilities, summed, a run of planes at a time. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from cpfnet import preprocessing
from cpfnet.image import Image
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.sliding_window import Network, SlidingWindow
from cpfnet.inference.tiling import Backend, batch_size, tile_size
from cpfnet.model import Model
from cpfnet.preprocessing import Slices, Trace, run_length


@dataclass(eq=False)
class Member:
    """One Model of several, ready to be fed.

    Attributes:
        number: its place among all.
        model: plan and what was fitted.
        backend: runs its network.
        tile: largest piece that it is given; None: the Plan's.
    """

    number: int
    model: Model
    backend: Backend
    tile: tuple[int, ...] | None

    def batch(self, size: tuple[int, ...]) -> int:
        """Pieces at once of an image of this size, if the options name no number."""
        return batch_size(self.model.plan, tile_size(self.model.plan, size[-self.model.plan.spatial.dims :], self.tile))


class Progress:
    """How much of the work of all groups, and first stages, is done, reported as a share, 0…1."""

    def __init__(self, models: Sequence[int], report: Callable[[float], None] | None):
        self.models, self.shares, self.report = models, [0.0] * len(models), report

    def update(self, group: int, share: float) -> None:
        """Of one group or first stage; each counts as many times as it has Models."""
        self.shares[group] = share
        if self.report is not None:
            done = sum(own * count for own, count in zip(self.shares, self.models, strict=True))
            self.report(done / sum(self.models))


def summed(
    groups: Sequence[Sequence[Member]],
    traces: Sequence[Trace],
    image: Image,
    options: PredictorOptions,
    progress: Progress,
    first_stages: Sequence[np.ndarray | None],
) -> tuple[Slices, Trace]:
    """Summed probabilities of all Models, on the network's grid if that is the same for all, else on the image's own.

    Args:
        groups: Models that share preprocessing.
        traces: of the image, one a group.
        image: as read.
        options: overlap, batch and copies.
        progress: of the groups, in their order.
        first_stages: of each group, the code map of what its first stage found; None where it has none.

    Returns:
        The sum, which is made when it is asked for, and the Trace that leads back from it.
    """
    sums = [
        (_GroupSum(members, image, trace, options, partial(progress.update, number), found).slices(), trace)
        for number, (members, trace, found) in enumerate(zip(groups, traces, first_stages, strict=True))
    ]
    if len(sums) == 1:
        return sums[0]
    own_grid = _OwnGridSum(sums, groups[0][0].model.plan.labels.outputs)
    return own_grid.slices(), own_grid.trace


class _GroupSum:
    """The sum over Models that share preprocessing, on their grid."""

    def __init__(
        self,
        members: Sequence[Member],
        image: Image,
        trace: Trace,
        options: PredictorOptions,
        progress: Callable[[float], None],
        first_stage: np.ndarray | None,
    ):
        self.progress = progress
        self.networks = [
            Network(one.backend, one.model.plan, options.overlap, options.tta, one.tile, options.batch)
            for one in members
        ]
        plan = members[0].model.plan
        self.count, self.by_slice = trace.grid[0], len(trace.grid) > plan.spatial.dims
        self.neighbours = plan.spatial.neighbours
        self.block = run_length(plan.labels.outputs, trace.grid) if len(trace.grid) == 3 else None
        if self.by_slice and self.block is not None:  # what sees one slice after another need not hold all
            batch = options.batch or max(member.batch(trace.grid) for member in members)
            self.block = batch * math.ceil(self.block / batch)
        block = self.block if self.by_slice else None
        self.pixels = preprocessing.prepare(image, plan, trace=trace, block=block, first_stage=first_stage)
        self._window: SlidingWindow | None = None

    def slices(self) -> Slices:
        return Slices(self._make, self.count, self.block)

    def _make(self, start: int, stop: int) -> np.ndarray:
        if not self.by_slice:
            if self._window is None:
                self._window = SlidingWindow(self.networks, self.pixels(0, self.count), progress=self.progress)
            return self._window.take(stop)
        first, last = max(start - self.neighbours, 0), min(stop + self.neighbours, self.count)

        def report(share: float) -> None:
            self.progress((start + share * (stop - start)) / self.count)

        run = slice(start - first, stop - first)
        return SlidingWindow(self.networks, self.pixels(first, last), run=run, progress=report).take(stop - start)


class _OwnGridSum:
    """The sum over groups, on the image's own grid in the orientation of the first.

    Where all see the volume's slices in one order it is made run by run, else all at once.
    """

    def __init__(self, sums: Sequence[tuple[Slices, Trace]], planes: int):
        first = sums[0][1]
        self.sums, self.planes = sums, planes
        self.trace = replace(first, grid=first.oriented)
        self.one_order = all((own.axes, own.flips) == (first.axes, first.flips) for _, own in sums)

    def slices(self) -> Slices:
        block = run_length(self.planes, self.trace.grid) if self.one_order else None
        return Slices(self._make, self.trace.grid[0], block)

    def _make(self, start: int, stop: int) -> np.ndarray:
        total = np.zeros((self.planes, stop - start, *self.trace.grid[1:]), np.float32)
        for slices, own in self.sums:
            run = (start, stop) if self.one_order else (0, own.oriented[0])
            total += self.trace.orient(own.restore_orientation(preprocessing.resample_back(slices, own, *run)))
        return total
