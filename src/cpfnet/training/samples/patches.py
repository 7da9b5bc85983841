"""Patches for training: sample number n is a pure function of (seed, n), whoever prepares it and whenever.

So a run can go on at any sample number, with any number of workers, and sees what it would have seen.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from cpfnet.cores import cores
from cpfnet.errors import PlanError, TrainingError
from cpfnet.labels import IGNORED
from cpfnet.planning import Plan, Spatial, TrainingPlan
from cpfnet.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from cpfnet.training.samples.augment import Cut
from cpfnet.training.samples.cache import ANNOTATED, Cached
from cpfnet.training.samples.first_stage import with_planes
from cpfnet.training.samples.shared_memory import workers_that_fit
from cpfnet.training.samples.stored_image import StoredImage
from cpfnet.training.signals import leave_signals

logger = logging.getLogger(__name__)

Augment = Callable[[Cut, np.random.Generator], tuple[np.ndarray, np.ndarray]]

_SOCKET_NAME = 103
"""Bytes of a name that sockets have room for: macOS 103, Linux 107."""

PATIENCE = 600
"""Seconds to wait for a batch before the workers are taken for dead."""

_ORDER, _SAMPLE = 0, 1  # streams of random numbers


class SampleError(RuntimeError):
    """A sample cannot be prepared; unlike many others, this kind finds its way back from a worker."""


class Sample(TypedDict):
    """image float32 (channels, *patch), codes uint8 (*patch), and the sample's number; batched: one axis in front."""

    image: torch.Tensor
    codes: torch.Tensor
    number: torch.Tensor


@dataclass(frozen=True)
class Schedule:
    """How samples become batches, optimiser steps and epochs; the whole state of a run's progress is one sample number.

    An epoch has ``training.samples`` samples; groups of ``accumulate`` batches make one optimiser step. The last batch
    and the last group of an epoch may be smaller.
    """

    training: TrainingPlan

    @property
    def group(self) -> int:
        return self.training.batch * self.training.accumulate

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.training.samples // self.group)

    @property
    def steps(self) -> int:
        return self.training.epochs * self.steps_per_epoch

    @property
    def samples(self) -> int:
        return self.training.epochs * self.training.samples

    def step(self, number: int) -> int:
        """Optimiser steps done before sample ``number``."""
        epoch, within = divmod(number, self.training.samples)
        return epoch * self.steps_per_epoch + within // self.group

    def group_size(self, number: int) -> int:
        """Samples in the optimiser step that begins with sample ``number``."""
        return min(self.group, self.training.samples - number % self.training.samples)


def check_shares(training: TrainingPlan, size: int) -> None:
    """Make sure that every batch can be dealt out evenly: the mean over the processes is the mean over the batch then.

    Raises:
        PlanError: it cannot, with the numbers of processes that could.
    """
    batch, rest = min(training.batch, training.samples), training.samples % training.batch
    if batch % size == 0 and rest % size == 0:
        return
    common = math.gcd(batch, rest)
    fitting = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
    last = f" and the last one of an epoch has {rest}" if rest and batch != rest else ""
    raise PlanError(
        f"{size} devices cannot share it evenly: a batch has {batch} sample{'s' * (batch != 1)}{last}",
        where="training.batch",
        fix=f"train on a number of devices that divides it ({fitting}), or, for a new run, set training.batch and "
        f"training.samples to multiples of {size}, such as {_multiple(batch, size)} and "
        f"{_multiple(training.samples, math.lcm(size, _multiple(batch, size)))}",
    )


def _multiple(number: int, of: int) -> int:
    """The next one."""
    return -(-number // of) * of


class Batches(Sampler[list[int]]):
    """Sample numbers, batch by batch, from ``start`` to the end of the run; no batch spans two optimiser steps.

    A process of a group gets its share of each batch: equal parts, in order.

    Args:
        training: the plan's.
        start: the first sample of an optimiser step.
        group: this process among those of the run.
        micro_batch_size: samples in a batch, where memory does not hold the plan's.
    """

    def __init__(
        self,
        training: TrainingPlan,
        start: int = 0,
        group: ProcessGroup = SINGLE_PROCESS,
        micro_batch_size: int | None = None,
    ):
        self.schedule = Schedule(training)
        self.start = start
        self.group = group
        self.micro_batch_size = training.batch if micro_batch_size is None else micro_batch_size

    @property
    def share(self) -> int:
        """Samples of this process in a full batch."""
        return max(1, self.micro_batch_size // self.group.size)

    def __iter__(self) -> Iterator[list[int]]:
        number = self.start
        while number < self.schedule.samples:
            end = number + self.schedule.group_size(number)
            while number < end:
                stop = min(number + self.micro_batch_size, end)
                share = (stop - number) // self.group.size
                first = number + self.group.rank * share
                yield list(range(first, first + share))
                number = stop


class Patches(Dataset[Sample]):
    """Patches of cached cases, augmented.

    Args:
        cases: cached ones, at least one.
        plan: `spatial` and `training`.
        augment: (way to cut a patch, rng) → (image, codes); None: patches as they are.
    """

    def __init__(self, cases: Sequence[Cached], plan: Plan, augment: Augment | None = None):
        self.cases = tuple(cases)
        self.plan = plan
        self.spatial = plan.spatial
        self.training = plan.training
        self.augment = augment
        self.sample_bytes = math.prod(plan.spatial.patch) * (4 * plan.in_channels + 1)  # float32, and codes

    def case_of(self, number: int) -> Cached:
        """Every case comes once in each round of ``len(cases)`` samples, in another order each time."""
        turn, place = divmod(number, len(self.cases))
        order = np.random.default_rng((self.training.seed, _ORDER, turn)).permutation(len(self.cases))
        return self.cases[order[place]]

    def __getitem__(self, number: int) -> Sample:
        case = self.case_of(number)
        try:
            image, codes = self._draw(case, np.random.default_rng((self.training.seed, _SAMPLE, number)))
        except MemoryError:
            raise  # not the sample's fault
        except Exception as error:
            raise SampleError(f"sample {number} of case {case.id}: {type(error).__name__}: {error}") from error
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)),
            codes=torch.from_numpy(np.ascontiguousarray(codes)),
            number=torch.tensor(number),
        )

    def _draw(self, case: Cached, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        reader = int(rng.integers(len(case.readers)))
        image, codes = case.image(), case.codes()[reader]
        if codes.ndim == 2:  # an image is a volume of one slice
            image, codes = image.as_volume(), codes[None]
        centre = self._centre(case, reader, codes.shape, rng)
        piece = partial(cut, image, codes, corner(codes.shape, centre, self.spatial, rng), self.spatial)
        if self.plan.first_stage:
            return self._with_first_stage(piece, rng)
        return piece() if self.augment is None else self.augment(piece, rng)

    def _with_first_stage(self, piece: Cut, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What the first stage found, the last channel of what is cut, moves as the codes do, and becomes planes."""

        def apart(margin: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
            image, codes = piece(margin)
            return image[:-1], np.stack([codes, image[-1].astype(np.uint8)])

        image, (codes, found) = apart() if self.augment is None else self.augment(apart, rng)
        spacing = np.array(self.spatial.spacing or (1, 1, 1), dtype=float)
        return with_planes(image, found, self.plan.labels, spacing, None if self.augment is None else rng), codes

    def _centre(
        self, case: Cached, reader: int, shape: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[int, ...] | None:
        """A voxel of a structure in `foreground` of the samples, else an annotated voxel; None: anywhere will do."""
        groups = {code: (start, stop) for r, code, start, stop in case.positions if r == reader}
        annotated = groups.pop(ANNOTATED, None)
        structures = list(groups.values())
        if rng.random() < self.training.foreground and structures:
            start, stop = structures[rng.integers(len(structures))]
        elif annotated:
            start, stop = annotated
        else:
            return None
        return tuple(int(i) for i in np.unravel_index(case.position(int(rng.integers(start, stop))), shape))


def corner(
    shape: tuple[int, ...], centre: tuple[int, ...] | None, spatial: Spatial, rng: np.random.Generator
) -> tuple[int, ...]:
    """Where a patch begins: inside the grid along axes that are long enough, else so that the grid lies in its middle.

    Args:
        shape: the grid's, (depth, height, width).
        centre: voxel in the patch's middle, as far as that can be; None: uniform.
        spatial: mode and patch.
        rng: used where ``centre`` is None.
    """
    starts = []
    for axis, (size, wanted) in enumerate(zip(shape, _volume(spatial), strict=True)):
        if size <= wanted:
            starts.append(-((wanted - size) // 2))
        elif centre is None:
            starts.append(int(rng.integers(size - wanted + 1)))
        else:
            starts.append(min(max(centre[axis] - wanted // 2, 0), size - wanted))
    return tuple(starts)


def cut(
    image: np.ndarray | StoredImage,
    codes: np.ndarray,
    start: tuple[int, ...],
    spatial: Spatial,
    margin: tuple[int, ...] = (0, 0, 0),
) -> tuple[np.ndarray, np.ndarray]:
    """Cut one patch, or with a margin more.

    What lies beyond the grid repeats the image's edge, as in prediction, and is IGNORED.

    Args:
        image: (channels, depth, height, width).
        codes: (depth, height, width).
        start: the patch's `corner`.
        spatial: mode, patch and neighbours.
        margin: voxels to add on both sides, along the axes of the patch.

    Returns:
        2d: (channels, *patch) and (*patch). 2.5d: the slices below and above come as further channels, slice by slice;
        beyond the first and last slice these are repeated. 3d: as 2d, with a depth.
    """
    margin = (0,) * (3 - len(margin)) + margin
    starts = [s - m for s, m in zip(start, margin, strict=True)]
    stops = [s + n + m for s, n, m in zip(start, _volume(spatial), margin, strict=True)]
    inside = [slice(max(s, 0), min(e, size)) for s, e, size in zip(starts, stops, codes.shape, strict=True)]
    padding = [(i.start - s, e - i.stop) for s, e, i in zip(starts, stops, inside, strict=True)]
    patch_codes = np.pad(codes[tuple(inside)], padding, constant_values=IGNORED)
    if spatial.dims == 3:
        return np.pad(image[(slice(None), *inside)], [(0, 0), *padding], mode="edge"), patch_codes
    around = np.arange(-spatial.neighbours, spatial.neighbours + 1) + inside[0].start
    slices = image[:, around.clip(0, len(codes) - 1), inside[1], inside[2]].swapaxes(0, 1)
    stack = slices.reshape(-1, *slices.shape[2:])
    return np.pad(stack, [(0, 0), *padding[1:]], mode="edge"), patch_codes[0]


def _volume(spatial: Spatial) -> tuple[int, ...]:
    """A patch of an image is a volume of one slice."""
    return (1,) * (3 - spatial.dims) + spatial.patch


def batches(
    patches: Patches,
    start: int,
    *,
    group: ProcessGroup = SINGLE_PROCESS,
    micro_batch_size: int | None = None,
    pin_memory: bool = False,
    patience: float = PATIENCE,
) -> DataLoader[Sample]:
    """`Batches`, from the optimiser step that begins with sample ``start`` to the end of the run.

    They are prepared ahead by the plan's workers, at most one a core, and as many as shared memory has room for.

    Where a sample cannot be prepared, a worker dies, or no batch comes within ``patience`` seconds, a RuntimeError is
    raised (the death of a worker is noticed at once, whatever the training process does then); `explain` says what it
    means.
    """
    workers = min(patches.training.workers, cores()) if _has_sockets() else 0  # the plan may be from a larger machine
    samples = Batches(patches.training, start, group, micro_batch_size)
    workers, ahead = workers_that_fit(workers, samples.share * patches.sample_bytes, processes=group.local_size)
    return DataLoader(
        patches,
        batch_sampler=samples,
        num_workers=workers,
        prefetch_factor=ahead,
        timeout=patience if workers else 0,
        worker_init_fn=_start_worker if workers else None,
        pin_memory=pin_memory,
    )


def _has_sockets() -> bool:
    """Can workers pass on what they made?

    It goes through sockets in the folder of temporary files, whose names Linux and macOS cut off.

    Where one does not fit, a worker fails without a word, and the training process waits for it.
    """
    longest = len(os.fsencode(tempfile.gettempdir())) + len("/pymp-01234567/listener-01234567")
    if longest <= _SOCKET_NAME:
        return True
    logger.warning(
        "Samples are prepared without workers, since the folder of temporary files has too long a name for their "
        "sockets: set TMPDIR to a shorter one"
    )
    return False


def _start_worker(number: int) -> None:
    leave_signals()


def explain(error: RuntimeError) -> TrainingError | None:
    """What went wrong in `batches`, or None where the error came from elsewhere."""
    text = str(error).strip()
    if isinstance(error, SampleError):
        return TrainingError(
            f"{text.rpartition('SampleError: ')[2]}",
            fix="run `cpfnet check` on the dataset, then go on with --resume (what is missing in the cache is made "
            "anew)",
        )
    if "DataLoader" in text:  # torch's own words for a worker that was killed, or keeps still
        return TrainingError(
            f"the processes that prepare samples stopped: {text.splitlines()[-1]}",
            fix="most likely memory ran out (a container may also limit /dev/shm): set training.workers lower (0 needs "
            "no processes), then go on with --resume",
        )
    return None
