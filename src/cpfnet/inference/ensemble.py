"""What one or several Models find in one image: their probabilities, summed, a run of slices at a time. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cpfnet import preprocessing
from cpfnet.image import Image
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.tiling import Backend, batch_size, predict_array, tile_size
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
    """How much of the work of all Models, and first stages, is done, reported as a share, 0…1."""

    def __init__(self, models: int, report: Callable[[float], None] | None):
        self.shares, self.report = [0.0] * models, report

    def update(self, member: int, share: float) -> None:
        self.shares[member] = share
        if self.report is not None:
            self.report(sum(self.shares) / len(self.shares))


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
        progress: of all Models.
        first_stages: of each group, the code map of what its first stage found; None where it has none.

    Returns:
        The sum, which is made when it is asked for, and the Trace that leads back from it.
    """
    sums = [
        (_GroupSum(members, image, trace, options, progress, found).slices(), trace)
        for members, trace, found in zip(groups, traces, first_stages, strict=True)
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
        progress: Progress,
        first_stage: np.ndarray | None,
    ):
        self.members, self.options, self.progress = members, options, progress
        plan = members[0].model.plan
        self.count, self.block, self.neighbours = trace.grid[0], None, 0
        if len(trace.grid) > plan.spatial.dims:  # what sees one slice after another need not hold all
            batch = options.batch or max(member.batch(trace.grid) for member in members)
            self.block = batch * math.ceil(run_length(plan.labels.outputs, trace.grid) / batch)
            self.neighbours = plan.spatial.neighbours
        self.pixels = preprocessing.prepare(image, plan, trace=trace, block=self.block, first_stage=first_stage)

    def slices(self) -> Slices:
        return Slices(self._make, self.count, self.block)

    def _make(self, start: int, stop: int) -> np.ndarray:
        first, last = max(start - self.neighbours, 0), min(stop + self.neighbours, self.count)
        array = self.pixels(first, last)
        total: np.ndarray | None = None
        for member in self.members:

            def report(share: float, number: int = member.number) -> None:
                self.progress.update(number, (start + share * (stop - start)) / self.count)

            planes = predict_array(
                member.backend,
                array,
                member.model.plan,
                overlap=self.options.overlap,
                tta=self.options.tta,
                tile=member.tile,
                batch=self.options.batch,
                run=slice(start - first, stop - first),
                progress=report,
            )
            if total is None:
                total = planes
            else:
                total += planes
        assert total is not None  # groups are never empty
        return total


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
