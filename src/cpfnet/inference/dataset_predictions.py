"""Predictions of a dataset's cases: loaded from a folder, or made by Models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpfnet import formats
from cpfnet.data.case import Case, Dataset, add_labels
from cpfnet.data.finding import quoted, shown
from cpfnet.data.sources.unread_files import unread_below, unread_fix
from cpfnet.errors import CpfnetError, DatasetError
from cpfnet.evaluation.case_masks import Item
from cpfnet.evaluation.protocol import first_few
from cpfnet.files import sweep
from cpfnet.formats import OutputFormat
from cpfnet.image import Segmentation
from cpfnet.inference.batch import records
from cpfnet.inference.batch.item import Item as BatchItem
from cpfnet.inference.batch.job import Job, Order, precheck, read, segment, write
from cpfnet.inference.batch.records import Recipe
from cpfnet.inference.batch.resume import recall
from cpfnet.inference.match_predictions import Match, Name, ambiguous, match, name_of, places
from cpfnet.inference.options import OutputOptions, PredictorOptions
from cpfnet.inference.predictor import Predictor
from cpfnet.model import Model
from cpfnet.progress import Bar


def choose(dataset: Dataset, split: str | None, models: Sequence[Model] = ()) -> tuple[list[Case], str]:
    """The labelled cases to evaluate, and in words which those are.

    Args:
        dataset: all cases.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; None: the test cases where there are labelled ones, else
            all.
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

    Models know which cases validated them, and ``"val"`` means these: after ``train --fold`` the dataset names none, or
    others, which trained them; of several folds it means the cases of all (`assign`). Where Models do not say, or the
    dataset has none of theirs, its own ``val`` counts.

    Args:
        dataset: all cases.
        split: ``"train"``, ``"val"`` or ``"test"``.
        models: whose validation cases are meant.

    Raises:
        DatasetError: no labelled case among them, with what else can be scored.
    """
    labelled = [case for case in dataset.cases if case.labels]
    declared = [case for case in labelled if case.split == split]
    validated = {validation_cases(model) for model in models}
    known = frozenset[str]().union(*validated)
    own = [case for case in labelled if case.id in known]
    if split == "val" and own:
        absent = sorted(known.difference(case.id for case in own))
        without = f", and without {first_few(absent)}, which this dataset has no label of" if absent else ""
        whom = "the model" if len(validated) == 1 else "one model each, which predicts it (out of fold)"
        return own, f"{len(own)} cases that validated {whom}{without}"
    unknown = "the model does not say which cases validated it" if models and split == "val" and not known else ""
    if declared:
        return declared, f"the {split} split" + (f" ({unknown})" if unknown else "")
    why = f"{len(labelled)} of {len(dataset.cases)} cases have labels"
    if unknown:
        why += f", and {unknown}"
    elif split == "val" and models:
        why += f", and none of them is one of the {len(known)} that validated the model ({first_few(sorted(known))})"
    others = (
        {case.split for case in labelled if case.split} | ({"val"} if own else set()) | (set() if models else {"all"})
    )
    if models:  # never what trained them
        others.discard("train")
    choice = (
        f"choose --split {', '.join(sorted(others))}" if others else "say in dataset.yaml which are which (`split`)"
    )
    raise DatasetError(
        f"no labelled case in split {split!r}: {why}",
        where=dataset.root,
        fix=choice if labelled else add_labels(dataset),
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


def load_predictions(dataset: Dataset, cases: Sequence[Case], folder: Path) -> tuple[list[Item], list[str]]:
    """Pair cases with the label maps in a folder and below, called as the case or as its image (see `match`).

    Where names are ambiguous, the records of `predict` decide, which name the image that a mask was made from. A folder
    ``probabilities`` inside, as `predict` writes it, is used for AUC; its folders of pictures are passed over.

    Args:
        dataset: what the cases are of: a file that is called as another of its cases is not free.
        cases: those to score.
        folder: of the label maps.

    Returns:
        One item a case, and warnings: names that repeat, files that are not used.

    Raises:
        DatasetError: not a folder, no prediction at all, two for one case, or one that several cases could mean.
    """
    if not folder.is_dir():
        raise DatasetError("no such folder", where=folder, fix="give the folder of predictions, or a Model")
    masks = _by_name(folder, passing=("probabilities", "uncertainty", "overlays"))
    maps = _by_name(folder / "probabilities")
    scored = {case.id for case in cases}
    left_out = any(case.labels and case.id not in scored for case in dataset.cases)
    matched = match(dataset.cases, masks, scored if left_out else (), _recorded(dataset, masks, folder))
    for case in cases:
        fitting = matched.several.get(case.id, [matched.files[case.id]] if case.id in matched.files else [])
        files = [file for name in fitting for file in masks[name]]
        if len(files) > 1:
            raise DatasetError(
                f"{len(files)} predictions fit: {quoted(files, folder)}",
                where=f"case {case.id}",
                fix="leave one of them in the folder, and move the others elsewhere",
            )
    alone = scored - set(matched.files)
    unclear = {name: meant for name, meant in matched.claims.items() if alone & set(meant)}
    if unclear:
        raise _unclear(dataset, unclear, masks, folder)
    if not scored & set(matched.files):
        raise DatasetError(
            f"no file is called as a case or its image; looked for {cases[0].id}.*"
            f"{f' and {len(cases) - 1} more' if len(cases) > 1 else ''} (found: {_seen(folder, masks)})",
            where=folder,
            fix=unread_fix(unread_below(folder), folder)
            or f"name each prediction as its case, such as `{cases[0].id}.png`",
        )
    items = []
    for case in cases:
        name = matched.files.get(case.id)
        planes = maps.get(name, []) if name else []
        if len(planes) > 1:
            raise DatasetError(
                f"{len(planes)} probability maps fit: {quoted(planes, folder)}",
                where=f"case {case.id}",
                fix="leave one of them in the folder, and move the others elsewhere",
            )
        items.append(item_of(case, masks[name][0] if name else None, planes[0] if planes else None))
    return items, _warnings(matched, masks, maps, folder)


def _recorded(dataset: Dataset, masks: Collection[Name], folder: Path) -> dict[Name, str]:
    """Label maps that `predict` made from the very image of one case → this case.

    Images are read only where names are ambiguous.
    """
    inputs = {
        name: record.input
        for called, record in records.each(folder)
        if (mask := record.mask) and (name := name_of(Path(mask.replace("*", called, 1)))) in masks
    }
    if not ambiguous(dataset.cases, inputs):
        return {}
    contents: dict[str, str] = {}
    for case in dataset.cases:
        try:
            contents[case.id] = records.content_of(case.images).digest
        except (CpfnetError, OSError):  # nothing is known of it; where it is used, the error names what is wrong
            continue
    often = Counter(contents.values())
    case_of = {content: case for case, content in contents.items() if often[content] == 1}
    return {name: case_of[content] for name, content in inputs.items() if content in case_of}


def _by_name(folder: Path, passing: Sequence[str] = ()) -> dict[Name, list[Path]]:
    """Path below the folder, without suffix → its files; nothing hidden."""
    files: dict[Name, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if inside.parts[0] in passing or any(part.startswith(".") for part in inside.parts):
            continue
        if formats.suffix_of(path) and path.is_file():
            files.setdefault(name_of(inside), []).append(path)
    return files


def _seen(folder: Path, masks: dict[Name, list[Path]]) -> str:
    """What lies in a folder of predictions, the first few."""
    files = [path for paths in masks.values() for path in paths] + unread_below(folder)
    return f"{', '.join(shown(path, folder) for path in files[:5])}{' …' * (len(files) > 5)}" if files else "no image"


def _unclear(
    dataset: Dataset, unclear: dict[Name, list[str]], masks: dict[Name, list[Path]], folder: Path
) -> DatasetError:
    """The error for files that several cases could mean: which, and a name for each that no other case has."""
    name, meant = next(iter(unclear.items()))
    file = masks[name][0]
    suffix = formats.suffix_of(file)
    others = f" (likewise {len(unclear) - 1} more)" * (len(unclear) > 1)
    own = next(place for case in dataset.cases if case.id in meant[:1] for place in places(case))
    count = next(
        (n for n in range(1, len(own)) if len(match(dataset.cases, [own[-n:]]).files) == 1), 1
    )  # folders that tell it apart
    place = f", or by the folders of its image: `{'/'.join(own[-count:])}{suffix}` …" if count > 1 else ""
    return DatasetError(
        f"{shown(file, folder)} could be the prediction of {len(meant)} cases "
        f"({', '.join(meant[:5])}{' …' * (len(meant) > 5)}), so it counts for none{others}",
        where=folder,
        fix=f"call each prediction as its case: {', '.join(f'`{one}{suffix}`' for one in meant[:2])} …{place}",
    )


def _warnings(
    matched: Match,
    masks: dict[Name, list[Path]],
    maps: dict[Name, list[Path]],
    folder: Path,
) -> list[str]:
    """Names that were taken for one split though they repeat beyond it, and files that are not used."""
    warnings = []
    if matched.assumed:
        name, meant = next(iter(matched.assumed.items()))
        warnings.append(
            f"{len(matched.assumed)} predictions are called as cases of other splits, too "
            f"({shown(masks[name][0], folder)}: {', '.join(meant[:5])}): they are taken for the split that is scored"
        )
    unused = [path for name in (*matched.unused, *matched.claims) for path in masks[name]]
    unused += [path for name, paths in maps.items() if name not in masks for path in paths]
    unused += unread_below(folder)
    if unused:
        what = "1 file is" if len(unused) == 1 else f"{len(unused)} files are"
        names = f"{quoted(unused[:5], folder)}{' …' * (len(unused) > 5)}"
        warnings.append(f"{what} the prediction of no case that could be told, and not used: {names}")
    return warnings


@dataclass(frozen=True)
class Assignment:
    """Cases, and the Models that predict them: several average their probabilities."""

    cases: Sequence[Case]
    models: Sequence[Model]


def assign(cases: Sequence[Case], models: Sequence[Model], *, out_of_fold: bool) -> list[Assignment]:
    """Which Models predict which cases.

    Args:
        cases: to be predicted.
        models: all there are.
        out_of_fold: each case is predicted by the Models that it validated, where they know; else by all of them.

    Returns:
        Every case once, those of the same Models together.
    """
    groups: dict[tuple[int, ...], list[Case]] = {}
    everybody = tuple(range(len(models)))
    validated = [validation_cases(model) for model in models]
    for case in cases:
        own = tuple(k for k in everybody if out_of_fold and case.id in validated[k])
        groups.setdefault(own or everybody, []).append(case)
    return [Assignment(members, [models[k] for k in numbers]) for numbers, members in sorted(groups.items())]


def predict_cases(
    cases: Sequence[Case],
    models: Sequence[Model],
    folder: Path,
    options: PredictorOptions,
    *,
    out_of_fold: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> list[Item]:
    """Predict every case into ``folder``, masks and probabilities: PNG and TIFF, of volumes NIfTI.

    What the same Models made there before, of the same images and with the same options, is left as it is
    (`batch.records`), so that an interrupted run goes on.

    Args:
        cases: to be predicted.
        models: several average their probabilities.
        folder: made if need be.
        options: how they predict.
        out_of_fold: as for `assign`.
        overwrite: replace files that nobody knows, too, or that were changed since they were made.
        progress: show a bar.

    Returns:
        One item a case, in their order.

    Raises:
        CpfnetError: a case cannot be read, lies outside what the Models were fitted for, or cannot be written.
    """
    items = {}
    for place in (folder, folder / "probabilities", folder / records.FOLDER):
        sweep(place)
    with Bar(show=progress) as bar:
        task = bar.add_task("Predicting", total=len(cases))
        for one in assign(cases, models, out_of_fold=out_of_fold):
            plan = one.models[0].plan
            # Not as DICOM, whose probabilities would be rounded to steps of 1/255.
            form: OutputFormat = "nifti" if plan.source == "volumes" else "png"
            output = OutputOptions(format=form, probabilities=True, overwrite=overwrite, resume=True)
            order = Order(folder, options, output, Recipe.of(one.models, options, output))
            predictor = None
            for case in one.cases:
                job = Job(BatchItem(case.images, case.id))
                precheck(job, order, plan, [path.resolve() for path in case.images])
                recall(job, order)
                if not job.already_done:
                    predictor = predictor or Predictor(one.models, options)
                    read(job)
                    segment(job, order, predictor, None)
                    write(job, order, plan)
                mask, maps = job.wanted.values()
                items[case.id] = item_of(case, mask, maps)
                bar.advance(task)
    return [items[case.id] for case in cases]


def validation_cases(model: Model) -> frozenset[str]:
    """Ids of the cases that validated a Model, where it knows them."""
    return frozenset(model.metrics.get("cases", {}).get("validation", ()))
