"""Predictions of a dataset's cases: found in a folder, or made by Models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from cpfnet import formats
from cpfnet.data.dataset import Case, Dataset
from cpfnet.data.pseudonyms import digest
from cpfnet.errors import DatasetError
from cpfnet.evaluation.cases import Item
from cpfnet.evaluation.protocol import some
from cpfnet.formats.files import SERIES
from cpfnet.image import Segmentation
from cpfnet.inference.predictor import Predictor
from cpfnet.model import Model
from cpfnet.progress import Bar


def choose(dataset: Dataset, split: str | None, models: Sequence[Model] = ()) -> tuple[list[Case], str]:
    """The labelled cases to evaluate, and in words which those are.

    Args:
        dataset: all cases.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; None: the test cases where there are labelled ones, else all.
        models: that are to be scored; see `of_split`.

    Raises:
        DatasetError: no labelled case among them, or as `of_split`.
    """
    labelled = [case for case in dataset.cases if case.labels]
    if split is None:
        split = "test" if any(case.split == "test" for case in labelled) else "all"
    if split == "all" and labelled:
        return labelled, "all labelled cases"
    return of_split(dataset, split, models)


def of_split(dataset: Dataset, split: str, models: Sequence[Model] = ()) -> tuple[list[Case], str]:
    """The labelled cases of one split, and in words which those are.

    Models know which cases validated them, and ``"val"`` means these: after ``train --fold`` the dataset names none, or others, which trained
    them. Where Models do not say, or the dataset has none of theirs, its own ``val`` counts.

    Args:
        dataset: all cases.
        split: ``"train"``, ``"val"`` or ``"test"``.
        models: whose validation cases are meant.

    Raises:
        DatasetError: no labelled case among them, with what else can be scored; or Models that were validated on different cases.
    """
    labelled = [case for case in dataset.cases if case.labels]
    declared = [case for case in labelled if case.split == split]
    validated = {frozenset(model.metrics.get("cases", {}).get("validation", ())) for model in models}
    if split == "val" and len(validated) > 1:
        raise DatasetError(
            f"the {len(models)} models were validated on different cases, as folds are: what validated one has trained another",
            mend="evaluate each model alone with --split val, or all of them on cases that none has seen (--split test)",
        )
    known = validated.pop() if len(validated) == 1 else frozenset[str]()
    own = [case for case in labelled if case.id in known]
    if split == "val" and own:
        absent = sorted(known.difference(case.id for case in own))
        said = f"{len(own)} cases that validated the model"
        return own, said + (f", and without {some(absent)}, which this dataset has no label of" if absent else "")
    unsaid = "the model does not say which cases validated it" if models and split == "val" and not known else ""
    if declared:
        return declared, f"the {split} split" + (f" ({unsaid})" if unsaid else "")
    why = f"{len(labelled)} of {len(dataset.cases)} cases have labels"
    if unsaid:
        why += f", and {unsaid}"
    elif split == "val" and models:
        why += f", and none of them is one of the {len(known)} that validated the model ({some(sorted(known))})"
    others = (
        {case.split for case in labelled if case.split} | ({"val"} if own else set()) | (set() if models else {"all"})
    )
    if models:  # never what trained them
        others.discard("train")
    choice = (
        f"choose --split {', '.join(sorted(others))}" if others else "say in dataset.yaml which are which (`split`)"
    )
    raise DatasetError(
        f"no labelled case in split {split!r}: {why}", where=dataset.root, mend=choice if labelled else "add labels"
    )


def item_of(case: Case, prediction: Path | Segmentation | None, probabilities: Path | None = None) -> Item:
    """A case and its prediction, to be scored."""
    return Item(
        case=case.id,
        prediction=prediction,
        truth=case.labels,
        roi=case.roi,
        patient=case.patient,
        images=case.images,
        probabilities=probabilities,
    )


def found(cases: Sequence[Case], folder: Path) -> list[Item]:
    """Pair cases with the label maps in a folder: called as the case, as its image, or as `predict` calls its DICOM series.

    A folder ``probabilities`` inside, as `predict` writes it, is used for AUC.

    Raises:
        DatasetError: not a folder, no prediction at all, or two for one case.
    """
    if not folder.is_dir():
        raise DatasetError("no such folder", where=folder, mend="give the folder of predictions, or a Model")
    masks = _by_name(folder)
    maps = _by_name(folder / "probabilities")
    shared = Counter(place for case in cases for place in case.images[0].absolute().parents)
    items = []
    for case in cases:
        stem = formats.stem(case.images[0])
        names = dict.fromkeys([case.id, stem, stem.removesuffix("_0000")])
        if formats.is_dicom(case.images[0]) and not masks.keys() & names:
            own = f"-{digest(case.images[0].name.removeprefix(SERIES))}"  # of a series beside others in its folder
            names |= dict.fromkeys(name for name in masks if name.endswith(own))
            names |= {place.name: None for place in case.images[0].absolute().parents if shared[place] == 1}
        several = {name: masks[name] for name in names if name in masks}
        files = [file for paths in several.values() for file in paths]
        if len(files) > 1:
            raise DatasetError(
                f"{len(files)} predictions fit: {', '.join(file.name for file in files)}",
                where=f"case {case.id}",
                mend="leave one of them in the folder",
            )
        probabilities = next((maps[name][0] for name in names if name in maps), None)
        items.append(item_of(case, files[0] if files else None, probabilities))
    if all(item.prediction is None for item in items):
        raise DatasetError(
            f"no file is called as a case or its image; looked for {cases[0].id}.* and {len(cases) - 1} more",
            where=folder,
            mend="name each prediction as its case",
        )
    return items


def _by_name(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*")):
        if formats.suffix_of(path) and path.is_file():
            files.setdefault(formats.stem(path), []).append(path)
    return files


def made(
    cases: Sequence[Case],
    models: Sequence[Model],
    folder: Path,
    *,
    device: str,
    tta: bool,
    force: bool,
    overwrite: bool,
    progress: bool,
    say: Callable[[str], None],
) -> list[Item]:
    """Predict every case into ``folder``, masks and probabilities.

    Raises:
        CpfnetError: a case cannot be read, lies outside what the Models were fitted for, or cannot be written.
    """
    predictor = Predictor(models, device=device, tta=tta, say=say)
    items = []
    with Bar(show=progress) as bar:
        for case in bar.track(cases, description="Predicting"):
            image = formats.read(list(case.images))
            segmentation = predictor.predict(image, force=force, keep_probabilities=True)
            mask = formats.write(segmentation, folder / case.id, overwrite=overwrite)
            volume = segmentation.affine is not None
            maps = folder / "probabilities" / f"{case.id}{'.nii.gz' if volume else '.tif'}"
            assert segmentation.probabilities is not None  # asked for above
            formats.write_map(
                segmentation.probabilities, segmentation, maps, names=segmentation.classes, overwrite=overwrite
            )
            items.append(item_of(case, mask, maps))
    return items
