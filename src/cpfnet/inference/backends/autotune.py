"""The fastest backend that decides as float32 does, found on the first images and kept beside the Model. No torch.

Float32 of the exported graph is what the others are compared with; it was compared with torch when it was written
(`convert`).
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cpfnet.cores import cores_in_words
from cpfnet.errors import NetworkError, OutputError
from cpfnet.inference.backends import exported_files
from cpfnet.inference.backends.exported_files import Choice, Judged
from cpfnet.inference.backends.runtimes import MODULES, computes_bf16, installed
from cpfnet.inference.tiling import Backend
from cpfnet.model import Model
from cpfnet.preprocessing.postprocess import activate, calibrate, decide

logger = logging.getLogger(__name__)

AGREEMENT = 0.999
"""Least share of pixels decided alike."""

DICE = 0.99
"""Least Dice with what float32 finds, all classes together: agreement on background must not hide a lost structure."""

GAIN = -0.001
"""Least change of the mean Dice against the truth, where it is known."""

FOUND = 1000
"""Pixels of structures that float32 must have found: the empty slices where a volume begins tell nothing."""

COMPARED = 2**19
"""Pixels that are compared, about: two images of 512²."""

TRIALS = 3

Maker = Callable[[str], Backend]
"""Name of a backend → the Model's network, ready to be fed."""


def candidates(model: Model) -> list[str]:
    """Backends for exported graphs that could run here, float32 first; empty where there is no runtime."""
    names = ["openvino"] if installed("openvino") else []
    names += ["onnx"] if installed("onnx") else []
    if installed("openvino"):
        names += ["openvino-bf16"] if computes_bf16() else []
        found = exported_files.record(model)
        names += ["openvino-int8"] if found is not None and found.int8 is not None else []
    return names


def known(model: Model) -> str | None:
    """What was chosen for this machine before, if it could still run."""
    found = exported_files.record(model)
    name = next((choice.backend for choice in found.choices if choice.setting == setting()), None) if found else None
    return name if name in candidates(model) else None


class AutoBackend:
    """A backend that begins in float32, and goes on with the fastest one that decides alike.

    It chooses as soon as it has seen enough.

    Args:
        model: decides.
        make: what makes a backend of a name.
        names: of the backends, float32 first; default: the `candidates`, and the choice is kept beside their graphs.
    """

    def __init__(self, model: Model, make: Maker, names: Sequence[str] | None = None) -> None:
        self.model, self.make, self.keep = model, make, names is None
        self.exact, *self.others = candidates(model) if names is None else names
        self.backend, self.settled = make(self.exact), False

    @property
    def blend(self) -> Any:
        """What sums up what is found where it was computed, if that is a GPU; see `sliding_window`."""
        return getattr(self.backend, "blend", None)

    def logits(self, batch: np.ndarray) -> Any:
        """What this gives, left on the GPU where that is possible."""
        kept_there: Any = self.backend
        return kept_there.logits(batch) if self.settled else self(batch)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        logits = self.backend(batch)
        if not self.settled:
            self._choose(batch, logits)
        return logits

    def _choose(self, batch: np.ndarray, logits: np.ndarray) -> None:
        found = np.array([np.count_nonzero(decided(piece[None], self.model)) for piece in logits])
        most = max(1, COMPARED // int(np.prod(batch.shape[2:])))
        pieces = batch[np.argsort(-found, kind="stable")[:most]]
        if found.sum() < FOUND:
            return
        self.settled = True
        runs: dict[str, Backend] = {self.exact: self.backend}
        for name in self.others:
            try:
                runs[name] = self.make(name)
            except NetworkError as error:
                logger.info("%s is left out: %s", name, error.what)
        judged = compare(runs, pieces, self.model)
        best = min((one for one in judged if one.passed), key=lambda one: one.seconds)
        self.backend = runs[best.backend]
        exact = judged[0]
        size = f"{len(pieces)} × {'×'.join(map(str, pieces.shape[2:]))}"
        found_better = (
            f"{exact.seconds / best.seconds:.1f} × as fast as {exact.backend}, and decides {best.agreement:.3%} "
            f"of the {size} pixels seen so far as that does"
        )
        why = f"the fastest here that decides as float32 does (on {size} pixels)" if best is exact else found_better
        logger.info("Backend %s: %s", best.backend, why)
        if self.keep:
            choice = Choice(setting=setting(), backend=best.backend, on=f"{size} pixels", judged=tuple(judged))
            remember(self.model, choice)


def compare(runs: dict[str, Backend], pieces: np.ndarray, model: Model) -> list[Judged]:
    """Time the backends in turns, and compare what they decide with what the first of them, float32, does.

    Args:
        runs: float32 first.
        pieces: float32 ``(N, in_channels, *spatial)``.
        model: decides.

    Returns:
        One for each backend, in their order; the first has passed.
    """
    masks = {name: decided(run(pieces), model) for name, run in runs.items()}  # warms up, too
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TRIALS):
        for name, run in runs.items():
            start = time.perf_counter()
            run(pieces)
            seconds[name].append(time.perf_counter() - start)
    exact = next(iter(masks.values()))
    judged = []
    for name, mask in masks.items():
        agreement, dice = float(np.mean(mask == exact)), overlap(mask, exact)
        passed = agreement >= AGREEMENT and dice >= DICE
        median = float(np.median(seconds[name]))
        judged.append(Judged(backend=name, seconds=median, agreement=agreement, dice=dice, passed=passed))
    return judged


def decided(logits: np.ndarray, model: Model) -> np.ndarray:
    """What the Model decides, as it was fitted.

    Args:
        logits: ``(N, outputs, *spatial)``.
        model: plan and what was fitted.

    Returns:
        Classes ``(N, *spatial)``, or regions ``(classes, N, *spatial)``.
    """
    labels, fitted = model.plan.labels, model.fitted
    planes = np.moveaxis(activate(logits, exclusive=labels.exclusive), 1, 0).copy()
    return decide(calibrate(planes, fitted.temperature, exclusive=labels.exclusive), labels, fitted.threshold)


def overlap(mask: np.ndarray, other: np.ndarray) -> float:
    """Dice of all classes together: 1 where both are empty."""
    size = np.count_nonzero(mask) + np.count_nonzero(other)
    return 2 * np.count_nonzero((mask == other) & (mask != 0)) / size if size else 1.0


def remember(model: Model, choice: Choice) -> None:
    """Keep a choice beside the Model; where that cannot be written, the next run chooses again."""
    found = exported_files.written(model)
    if found is None:
        return
    others = tuple(one for one in found.choices if one.setting != choice.setting)
    try:
        exported_files.keep(model, found.model_copy(update={"choices": (*others, choice)}))
    except OutputError:
        return


def setting() -> str:
    """What a choice holds for: the processor and the installed runtimes."""
    versions = (f"{MODULES[name]} {metadata.version(MODULES[name])}" for name in MODULES if installed(name))
    return ", ".join((processor(), *versions))


def processor() -> str:
    """Its name, and how many of its cores may be used."""
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.is_file():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), name)
    return f"{name}, {cores_in_words()}"
