"""The protocols: which cases of a data set train, which choose, and which judge.

The cases that judge choose nothing: not the epoch, not the threshold, not the temperature, not the plan. All of that
falls on the cases that choose (`val` in the dataset.yaml written here), which are taken out of the training part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ruamel.yaml import YAML

from cpfnet.data.dataset import load
from cpfnet.errors import DatasetError
from cpfnet.files import replacing

RECIPES = Path(__file__).parents[2] / "recipes"

CHOOSING = 1 / 6
"""Share of the cases that do not judge, rounded, which choose instead of training; 3 of 16 are the fewest that
thresholds are fitted on."""


@dataclass(frozen=True)
class Protocol:
    """How one data set is used.

    Attributes:
        name: of its recipe, and of its command.
        title: for tables.
        judging: the cases that judge, one tuple of names a fold; or a share of all cases, spread evenly over their
            names: then there is one fold.
        threshold_on: the split whose best mean Dice chooses the threshold, as `cpfnet evaluate --threshold-on`; None:
            what the Model was fitted with.
        metrics: columns of its table, keys of `cpfnet.evaluation.metrics.binary.METRICS`; "guide" is the batch-pooled
            Dice.
        reader: of several, the one whose labels count.
    """

    name: str
    title: str
    judging: tuple[tuple[str, ...], ...] | float
    metrics: tuple[str, ...]
    threshold_on: Literal["train", "val"] | None = None
    reader: str | None = None

    @property
    def folds(self) -> int:
        return 1 if isinstance(self.judging, float) else len(self.judging)


def _blocks(first: int, last: int, size: int) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(str(n) for n in range(start, start + size)) for start in range(last - size + 1, first - 1, -size)
    )


STARE = (
    "im0001 im0002 im0003 im0004 im0005 im0044 im0077 im0081 im0082 im0139 "
    "im0162 im0163 im0235 im0236 im0239 im0240 im0255 im0291 im0319 im0324"
)
"""The twenty of its photographs whose vessels are drawn."""

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # The training photographs are called 21 … 40; fold 0 is what the recipe holds out. The threshold is chosen on
        # the images that trained, as in the protocol of Galdran et al., Scientific Reports 2022, and of Laibacher and
        # Anjos, 2019.
        Protocol(
            "drive",
            "DRIVE",
            _blocks(21, 40, 4),
            ("dice", "auc", "cldice", "thin_recall", "nsd", "hd95", "guide"),
            "train",
        ),
        # Two folds of every other photograph; no training on them tuned anything.
        Protocol(
            "stare",
            "STARE",
            (tuple(STARE.split()[::2]), tuple(STARE.split()[1::2])),
            ("dice", "auc", "cldice", "thin_recall", "nsd", "hd95"),
            "train",
            reader="ah",
        ),
        Protocol("ph2", "PH²", 1 / 3, ("dice", "iou", "hd95", "nsd")),
        Protocol("hippocampus", "Hippocampus", 40 / 156, ("dice", "hd95", "nsd")),
        Protocol("chestxray", "ChestXray", 1 / 5, ("dice", "iou", "hd95", "nsd")),
    )
}


def evenly(names: Sequence[str], share: float) -> list[str]:
    """A share of ``names`` (rounded, at least one), at even distances in their order."""
    count = max(1, round(share * len(names)))
    return [names[number * len(names) // count] for number in range(count)]


def parts(names: Sequence[str], protocol: Protocol, fold: int) -> tuple[list[str], list[str]]:
    """Which of the cases choose and which judge; all others train.

    Args:
        names: of all labelled cases, in natural order.
        protocol: of their data set.
        fold: from 0.

    Raises:
        DatasetError: no such fold, or none of its cases is there, or none is left.
    """
    if not 0 <= fold < protocol.folds:
        raise DatasetError(
            f"no fold {fold}; there are {protocol.folds}",
            where=protocol.name,
            fix=f"choose 0 … {protocol.folds - 1}" if protocol.folds > 1 else "leave out --folds",
        )
    if isinstance(protocol.judging, float):
        judging = evenly(names, protocol.judging)
    else:
        judging = [name for name in names if name in protocol.judging[fold]]
    others = [name for name in names if name not in judging]
    if not judging or len(others) < 2:
        raise DatasetError(
            f"{len(names)} labelled cases, {len(judging)} of them to judge in fold {fold}",
            where=protocol.name,
            fix="give the data set as its recipe describes it",
        )
    return evenly(others, CHOOSING), judging


def write_dataset(protocol: Protocol, data: Path, fold: int, out: Path) -> Path:
    """Write the recipe with this fold's split as ``out`` (a dataset.yaml).

    Args:
        protocol: of the data set.
        data: the folder that the recipe describes.
        fold: from 0.
        out: the file; an equal one may be there.

    Raises:
        CpfnetError: the data are not as the recipe says, or another split was written there before.
    """
    if not data.is_dir():
        raise DatasetError("no such folder", where=data, fix="give --data the folder that the recipe describes")
    yaml = YAML(typ="safe", pure=True)
    recipe = yaml.load((RECIPES / f"{protocol.name}.yaml").read_text(encoding="utf-8"))
    recipe.pop("split", None)
    recipe["root"] = str(data.resolve())
    if protocol.reader is not None:
        recipe["label"] = recipe["label"][protocol.reader]
    yaml.default_flow_style = None
    split = yaml.load(out.read_text(encoding="utf-8"))["split"] if out.exists() else None
    with replacing(out, overwrite=True) as path:
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(recipe, file)
        try:
            cases = load(path).cases
        except DatasetError as error:  # which names the file that is not kept
            raise DatasetError(
                f"not as recipes/{protocol.name}.yaml describes it: {error.what}", where=data, fix=error.fix
            ) from None
        choosing, judging = parts([case.id for case in cases if case.labels], protocol, fold)
        recipe["split"] = {"val": choosing, "test": judging}
        if split not in (None, recipe["split"]):
            raise DatasetError(
                "the split written here before was another one, of other cases",
                where=out,
                fix="give the same --data as then, or choose another --out",
            )
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(recipe, file)
    return out
