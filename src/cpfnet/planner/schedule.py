"""How long to train, and what to look at on the way.

Steps follow the data: so many passes over all distinct patches. Validation takes no more than `VALIDATION` of the run:
after each epoch a fixed part of the cases, and at its end whole ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cpfnet.planner import speed
from cpfnet.planner.costs import patch_flops
from cpfnet.planner.draft import Draft

PASSES = {"images": 100, "slices": 25, "volumes": 100}
"""How often a GPU meets each distinct patch of images, of slices (neighbours look alike), and of volumes in 3-D."""

CPU_PASSES = {"images": 10, "slices": 1, "volumes": 10}
"""The same on a CPU, where steps were measured for small data sets: these get more than that, so it counts where data
are many."""

LEAST_STEPS, MOST_STEPS = 10_000, 250_000
"""On a GPU; the most is what nnU-Net always takes."""

EPOCHS, CPU_EPOCHS = 100, 40

VALIDATION = 0.1
"""Largest share of a run's time that validation takes …"""

ON_THE_WAY = 0.6
"""… and of it, what is kept for validation after epochs; whole cases at the end take the rest or less."""

PASSES_AT_THE_END = 4
"""Over whole cases: for the best Model's scores (unless all were scored after its epoch), two for what is fitted, and
for the report."""

PIECES = 8
"""Fewer pieces after an epoch say nothing of which epoch is the best: there are fewer epochs then …"""

LEAST_EPOCHS = 5
"""… but not fewer than that."""

PIECES_OF_A_CASE = 4
"""From each case at least so many, before more cases are looked at."""


@dataclass(frozen=True)
class Schedule:
    """What is proposed.

    Attributes:
        epochs, steps: optimiser steps are their product.
        validation: of the Plan; None: all cases, whole, after each epoch.
        seconds: that training takes on the planned machine, validation not counted.
        validation_seconds: that come on top.
        why: of the number of steps.
    """

    epochs: int
    steps: int
    validation: dict[str, int | None] | None
    seconds: float
    validation_seconds: float
    why: str


def propose_schedule(
    draft: Draft, *, group: int, steps: int, training: int, held_out: int, hours: float | None
) -> Schedule:
    """How long.

    Args:
        draft: with `spatial`, `inference.tile` and the network.
        group: patches of an optimiser step.
        steps: an epoch's, as measured on a CPU.
        training, held_out: cases that train, and that validate.
        hours: that the run is to take, instead of what the data ask for.
    """
    patch, spacing = draft.data["spatial"]["patch"], draft.data["spatial"].get("spacing")
    options = draft.data["network"].get("options")
    flops = group * patch_flops(draft.network, patch, spacing=spacing, options=options)
    each = speed.step_seconds(draft.memory, flops)
    gpu = draft.memory.device == "cuda"
    epochs = EPOCHS if gpu else CPU_EPOCHS
    if hours is not None:
        total = max(1, int(3600 * hours * (1 - VALIDATION) / each))
        why = f"as many as fit into {speed.duration(3600 * hours)}"
        epochs = min(epochs, max(1, total // 10))
    else:
        passes = (PASSES if gpu else CPU_PASSES)[_kind(draft)]
        asked = math.ceil(passes * distinct_patches(draft, training) / group)
        least, most = (LEAST_STEPS, MOST_STEPS) if gpu else (epochs * steps, max(MOST_STEPS, epochs * steps))
        total = min(max(asked, least), most)
        why = ""
        if total == asked:
            why = f"{passes} time{'s' * (passes != 1)} over {distinct_patches(draft, training):,} distinct patches"
    pieces, one = _pieces_of_a_case(draft), _piece_seconds(draft)
    allowed = total * each * VALIDATION / (1 - VALIDATION)
    everything = (epochs + PASSES_AT_THE_END - 1) * held_out * pieces * one
    if everything <= allowed:
        validation, spent = None, everything
    else:
        of_a_case = PASSES_AT_THE_END * pieces * one
        whole = min(held_out, max(1, int((1 - ON_THE_WAY) * allowed / of_a_case)))
        left = max(ON_THE_WAY * allowed, allowed - whole * of_a_case) / one
        enough = min(PIECES, held_out * pieces)
        while epochs > LEAST_EPOCHS and left / epochs < enough:
            epochs = max(LEAST_EPOCHS, epochs // 2)
        epochs = max(1, min(epochs, int(left)))
        found = max(1, int(left / epochs))
        cases = min(held_out, max(1, found // min(PIECES_OF_A_CASE, pieces)))
        each_case = min(pieces, max(1, found // cases))
        validation = {"cases": cases, "pieces": each_case, "whole": None if whole == held_out else whole}
        spent = epochs * cases * each_case * one + whole * of_a_case
    per_epoch = -(-total // epochs)
    return Schedule(epochs, per_epoch, validation, epochs * per_epoch * each, spent, why)


def _kind(draft: Draft) -> str:
    if not draft.fingerprint.volumes:
        return "images"
    return "volumes" if draft.data["spatial"]["mode"] == "3d" else "slices"


def distinct_patches(draft: Draft, cases: int) -> int:
    """Of so many cases: how many patches cover them."""
    patch, median = draft.data["spatial"]["patch"], draft.median
    of_a_plane = math.prod(-(-n // p) for n, p in zip(median[-len(patch) :], patch, strict=True))
    slices = median[0] if _kind(draft) == "slices" else 1
    return cases * slices * of_a_plane


def _piece(draft: Draft) -> tuple[int, ...]:
    """What the network is given at once in validation: a tile, or a whole slice or image."""
    patch, tile = draft.data["spatial"]["patch"], draft.data["inference"]["tile"]
    median = draft.median[-len(patch) :]
    limit = tile or (patch if len(patch) == 3 else median)
    return tuple(min(most, max(n, p)) for most, n, p in zip(map(max, limit, patch), median, patch, strict=True))


def _piece_seconds(draft: Draft) -> float:
    piece, options = _piece(draft), draft.data["network"].get("options")
    spacing = draft.data["spatial"].get("spacing")
    flops = patch_flops(draft.network, piece, spacing=spacing, options=options)
    return speed.piece_seconds(draft.memory, flops, math.prod(piece))


def _pieces_of_a_case(draft: Draft) -> int:
    """Tiles of a median case, as they overlap by half; times its slices."""
    piece = _piece(draft)
    median = draft.median[-len(piece) :]
    tiles = math.prod(1 if n <= p else -(-(n - p) // max(1, p // 2)) + 1 for n, p in zip(median, piece, strict=True))
    return tiles * (draft.median[0] if _kind(draft) == "slices" else 1)
