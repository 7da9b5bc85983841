"""The state of a run on disk: enough to go on as if it had never stopped.

out/.work/last.ckpt   the state, always whole: written under another name, flushed to the disk, then renamed
out/.work/plan.yaml   the plan of the run
out/.work/lock        held while a process trains here (`lock`)
out/.work/cache/      preprocessed cases, until the run has ended
out/logs/             TensorBoard and CSV
out/                  the best Model so far
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from cpfnet.errors import OutputError, TrainingError, WeightsError
from cpfnet.files import replacing, sweep
from cpfnet.network.pretrained.unpickle import MORE, load_tensors
from cpfnet.planning import Plan
from cpfnet.settings import validate
from cpfnet.training.samples.cache import disk_error

LAYOUT = 2  # raise it when checkpoints change their meaning

FREE = ("training.epochs", "training.workers", "inference.tile", "inference.batch")
"""What may differ between a run and its continuation."""


class RunFolder:
    """Where a run keeps its things; see the head of this file."""

    def __init__(self, out: Path):
        self.out = out
        self.work = out / ".work"
        self.checkpoint = self.work / "last.ckpt"
        self.plan = self.work / "plan.yaml"
        self.init = self.work / "init"
        self.cache = self.work / "cache"
        self.logs = out / "logs"

    def check_init(self, weights: str) -> None:
        """Refuse to begin from other weights than what was begun here.

        Args:
            weights: SHA-256 of those of the Model to begin from; "" for none.

        Raises:
            TrainingError: `keep_init` kept something else.
        """
        then = self.init.read_text(encoding="utf-8") if self.init.is_file() else weights
        if then != weights:
            raise TrainingError(
                f"was begun from {'another' if then and weights else 'a' if then else 'no'} Model, and what is left "
                "would begin otherwise",
                where=self.out,
                fix="give the Model that the first command named (--init)" if then else "leave out --init",
            )

    def keep_init(self, weights: str) -> None:
        """Note which weights are begun from, for `check_init`."""
        with replacing(self.init, overwrite=True) as note:
            note.write_text(weights, encoding="utf-8")

    def check(self, *, resume: bool) -> None:
        """Make sure that a run may write here; nothing is written yet.

        Raises:
            OutputError: something is here that no interrupted run left.
        """
        try:
            found = sorted({p.name for p in self.out.iterdir()} - {".work"}) if self.out.exists() else []
            mine = self.plan.is_file()
            if (mine or found) and not (mine and resume):
                found += [".work"] * mine
                shown = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
                raise OutputError(
                    f"exists already and holds {shown}",
                    where=self.out,
                    fix="go on with that run by --resume, or choose another folder"
                    if mine
                    else "choose another folder; nothing is overwritten",
                )
        except OSError as error:
            raise disk_error(error, self.out) from None

    def first_plan(self) -> Plan:
        """The plan that the run began with.

        Raises:
            TrainingError: none began here.
        """
        if not self.plan.is_file():
            raise TrainingError(
                "no training run began here",
                where=self.out,
                fix="give the folder of an interrupted run, or leave out --resume",
            )
        return Plan.load(self.plan)

    def make(self) -> None:
        """Make the folder, and clear away what a sudden end left half-written; only who holds it (`lock`) may.

        Raises:
            OutputError: it cannot be made or written.
        """
        try:
            for half in self.out.glob(".saving-*"):  # a Model that was being written at a sudden end
                shutil.rmtree(half)
            for place in (self.out, self.work, self.logs):
                sweep(place)
            self.checkpoint.with_name(self.checkpoint.name + ".tmp").unlink(missing_ok=True)
            for half in self.cache.glob(".*"):
                shutil.rmtree(half, ignore_errors=True)
            self.work.mkdir(parents=True, exist_ok=True)
            (self.work / ".writable").touch()
            (self.work / ".writable").unlink()
        except OSError as error:
            raise disk_error(error, self.out) from None


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint: whatever happens on the way, ``path`` holds the old one or the new one, whole.

    Raises:
        OutputError: the disk is full; the old one is still there.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({"layout": LAYOUT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        if os.name == "posix":  # the new name itself must reach the disk
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    except (OSError, RuntimeError) as error:  # torch turns some failed writes into RuntimeErrors
        temporary.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__
        raise disk_error(cause if isinstance(cause, OSError) else OSError(str(error)), path) from None


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; no code in it runs.

    Raises:
        TrainingError: damaged, or another version's.
    """
    try:
        state = load_tensors(path)
    except OSError as error:
        raise TrainingError(f"cannot be read: {error.strerror}", where=path, fix="make it readable") from None
    except WeightsError as error:
        what = "is damaged, or no checkpoint of cpfnet" if error.what != MORE else f"is no checkpoint of cpfnet: {MORE}"
        fix = "put back the file that the run wrote, or start again in another folder"
        raise TrainingError(what, where=path, fix=fix) from None
    if not isinstance(state, dict) or state.get("layout") != LAYOUT:
        raise TrainingError(
            "is not a checkpoint of this version of cpfnet",
            where=path,
            fix="go on with the version that wrote it, or start again in another folder",
        )
    return state


def plan_of(state: dict[str, Any], path: Path) -> Plan:
    """The plan that a checkpoint was made under."""
    return validate(Plan, state["plan"], where=str(path))


def check_same(old: Plan, new: Plan, out: Path) -> None:
    """Refuse to go on under a plan that would give other weights.

    Raises:
        TrainingError: with every key that differs, and both values.
    """
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    differing = [k for k in dict.fromkeys([*before, *after]) if k not in FREE and before.get(k) != after.get(k)]
    if differing:
        shown = "; ".join(f"{k}: {before.get(k)!r} then, {after.get(k)!r} now" for k in differing)
        raise TrainingError(
            f"the run began with another plan: {shown}",
            where=out,
            fix="resume without changing these, or train into another folder (--init starts from this run's weights)",
        )


def check_data(old: dict[str, str], new: dict[str, str], out: Path) -> None:
    """Refuse to go on with other data.

    Args:
        old, new: case → digest of its content.
        out: for the message.

    Raises:
        TrainingError: with the cases that were added, removed or changed.
    """
    parts = {
        "added": sorted(new.keys() - old.keys()),
        "missing": sorted(old.keys() - new.keys()),
        "changed": sorted(k for k in old.keys() & new.keys() if old[k] != new[k]),
    }
    differences = "; ".join(
        f"{what}: {', '.join(ids[:5])}{f' and {len(ids) - 5} more' if len(ids) > 5 else ''}"
        for what, ids in parts.items()
        if ids
    )
    if differences:
        raise TrainingError(
            f"the run began with other cases ({differences})",
            where=out,
            fix="resume with the same dataset and --fold, or train into another folder",
        )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted key → value."""
    if isinstance(tree, dict) and tree:
        return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}{key}.").items()}
    if isinstance(tree, list) and any(isinstance(v, dict) for v in tree):
        return {k: v for i, value in enumerate(tree) for k, v in _flat(value, f"{prefix}{i}.").items()}
    return {prefix[:-1]: tree}
