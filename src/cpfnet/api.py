"""What ``cpfnet.<verb>`` and the commands do; a command is its verb and nothing more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cpfnet.errors import CpfnetError, OutputError, require_extras
from cpfnet.files import check_writable
from cpfnet.planning import Plan

if TYPE_CHECKING:
    from cpfnet.data.case import Case, Dataset
    from cpfnet.data.checks.check import Finding
    from cpfnet.data.export.convert import Converted
    from cpfnet.data.export.manifests import Target
    from cpfnet.evaluation.comparison.load_runs import Report
    from cpfnet.evaluation.comparison.result import Comparison
    from cpfnet.evaluation.scores import Scores
    from cpfnet.formats import OutputFormat
    from cpfnet.image import Image, Segmentation
    from cpfnet.inference.batch.run import Outcome
    from cpfnet.model import Model
    from cpfnet.planner.machine import Memory

PathLike = Path | str
Say = Callable[[str], None]

logger = logging.getLogger(__name__)


@require_extras()
def check(
    dataset: PathLike,
    *,
    html: PathLike | None = None,
    workers: int | None = None,
    progress: bool = False,
    overwrite: bool = False,
) -> list[Finding]:
    """Every problem of a dataset, each with its fix.

    Args:
        dataset: folder, dataset.yaml, CSV manifest or datalist JSON.
        html: also write a page with pictures of the worst cases.
        workers: threads that read; default: one a core.
        progress: show a bar.
        overwrite: replace an existing page.

    Raises:
        DatasetError: ``dataset`` cannot be understood at all.
        OutputError: the page exists, or cannot be written.
    """
    from cpfnet.data.checks.check import check as run
    from cpfnet.data.checks.html_page import write_page
    from cpfnet.data.dataset import load
    from cpfnet.files import replacing

    if html is None:
        return run(Path(dataset), workers=workers, progress=progress)
    with replacing(Path(html), overwrite=overwrite) as page:  # refused at once, not after all was read
        check_writable(Path(html).parent)
        data = load(dataset)
        findings = run(data, workers=workers, progress=progress)
        write_page(findings, data, page)
    return findings


@require_extras()
def plan(
    dataset: PathLike,
    *,
    out: PathLike | None = None,
    modality: str | None = None,
    network: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    memory: str | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    preview: PathLike | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Plan:
    """Fingerprint the data and propose how to train on them.

    Args:
        dataset: as for `check`.
        out: write the plan here, with the reason beside each choice.
        modality: what the images are; default: declared by the dataset, else guessed.
        network, weights: to plan for; default: what suits the data, from ImageNet weights where the network takes them.
        device: what will train: ``"auto"`` (a GPU where there is one that PyTorch can use), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        memory: of the GPU of another machine to plan for (with ``device="cpu"`` its main memory), such as ``"24GiB"``; default: what is
            free here.
        settings: to change in the proposal: ``{"training.epochs": 3}``, or ``["training.epochs=3"]`` as on the command line.
        preview: write a picture of 16 augmented samples here.
        overwrite: replace an existing ``out`` or ``preview``.
        progress: show a bar.

    Raises:
        CpfnetError: the dataset cannot be planned for, or a file is in the way.
    """
    from cpfnet.data.case import dataset_warnings
    from cpfnet.data.dataset import load
    from cpfnet.planner.fingerprint import fingerprint
    from cpfnet.planner.machine import Memory
    from cpfnet.planner.proposal import propose
    from cpfnet.settings import check_keys, is_set

    check_keys(Plan, settings)  # before the data are read
    machine = Memory.found(device) if memory is None else Memory.given(memory, device)
    for path in (out, preview):
        if path is not None:
            _free(Path(path), overwrite)
    if network is not None:
        from cpfnet.network import zoo

        zoo.takes_imagenet(network)  # a name that nothing is called by is refused before the data are read
    data = load(Path(dataset))
    for warning in dataset_warnings(data):
        logger.warning(warning)
    found = fingerprint(data, progress=progress)
    for note in found.notes:
        logger.warning(note)
    proposed, reasons = propose(found, data, modality=modality, network=network, weights=weights, memory=machine)
    if settings:
        from cpfnet.training.initial_weights import check_buildable

        proposed = proposed.with_settings(settings)
        check_buildable(proposed)
        reasons = {key: "as asked for" if is_set(key, settings) else why for key, why in reasons.items()}
    if out is not None:
        proposed.save(out, comments=reasons)
    if preview is not None:
        from cpfnet.report.lettering import lettering
        from cpfnet.training.samples.preview import preview as draw

        draw(data, proposed, Path(preview))
        if key := lettering([c.name for c in proposed.labels.classes]).key:
            logger.info(f"{preview}: {key}")
    return proposed


@require_extras()
def train(
    dataset: PathLike,
    out: PathLike,
    *,
    plan: Plan | PathLike | None = None,
    fold: int | None = None,
    epochs: int | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    network: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    resume: bool = False,
    init: PathLike | None = None,
    progress: bool = False,
) -> Model:
    """Train a Model and write it, with a report, to ``out``.

    Args:
        dataset: as for `check`.
        out: the Model folder; must not exist, unless ``resume``.
        plan: default: what `plan` proposes; with ``resume``, what the run began with.
        fold: validate on this fold (from 0) of the plan's cross-validation; default: the dataset's own ``val`` split,
            else fold 0.
        epochs, settings, network, weights: changes to the plan (``settings`` as for `plan`; ``weights``: ``"imagenet"``,
            ``"none"`` or a file).
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        devices: GPUs, or processes on a CPU, of each machine that share every batch; the result is that of one, up to rounding.
            Under torchrun it is known.
        nodes: machines; torchrun or SLURM's srun starts the processes then.
        resume: go on with an interrupted run; ends with the same weights as a run that was never interrupted.
        init: start from this Model's weights; without ``plan`` and ``network``, the proposed plan gets its network, too.
        progress: show a bar.

    Raises:
        CpfnetError: the data, plan, weights, devices or ``out`` do not allow it; a process was killed.
    """
    from cpfnet.training.from_dataset import train_on_dataset
    from cpfnet.training.options import PlanOptions, TrainOptions

    wanted = PlanOptions(Path(plan) if isinstance(plan, str) else plan, settings, epochs, network, weights)
    options = TrainOptions(fold, device, devices, nodes, resume, None if init is None else Path(init), progress)
    return train_on_dataset(Path(dataset), Path(out), wanted, options)


@require_extras()
def predict(
    model: Model | PathLike | Sequence[Model | PathLike],
    scan: Image | PathLike | Sequence[PathLike],
    *,
    backend: str = "auto",
    device: str = "auto",
    tta: bool = False,
    force: bool = False,
    probabilities: bool = False,
    uncertainty: bool = False,
    say: Say = print,
) -> Segmentation:
    """Segment one scan; several models average their probabilities.

    Args:
        model: Model(s) or their folders.
        scan: an Image; or what `read` takes: a file, the folder or ZIP archive of a DICOM series, or several files.
        backend: what runs the network: ``"auto"`` (on a GPU torch; on a CPU the fastest that decides as float32 does, found on first use and kept
            beside the Model), ``"torch"``, ``"torch-bf16"``, ``"onnx"``, ``"openvino"``, ``"openvino-bf16"`` or ``"openvino-int8"``.
        device, say: as for `train`.
        tta: average over mirrored and turned copies, too (``inference.mirror`` and ``quarter_turns`` of the plan).
        force: go on where the scan lies outside what the Model was fitted for.
        probabilities: keep them in the result.
        uncertainty: keep a map of it in the result: the entropy of the probabilities, averaged over mirrored and turned copies and models.

    Returns:
        The label map; its ``quality`` says how good it probably is, and why to look at it first.

    Raises:
        FormatError: the scan cannot be read.
        InputRefused: it lies outside what the Model was fitted for.
    """
    from cpfnet import formats
    from cpfnet.image import Image
    from cpfnet.inference.predictor import Predictor

    image = scan if isinstance(scan, Image) else formats.read(scan)
    for note in image.notes:
        say(note)
    predictor = Predictor(_models(model), device=device, backend=backend, tta=tta, say=say)
    return predictor.predict(image, force=force, keep_probabilities=probabilities, uncertainty=uncertainty)


@require_extras()
def predict_files(
    models: Model | PathLike | Sequence[Model | PathLike],
    inputs: Sequence[PathLike],
    out: PathLike,
    *,
    format: OutputFormat = "same",
    probabilities: bool = False,
    uncertainty: bool = False,
    overlays: bool = False,
    tta: bool = False,
    overlap: float | None = None,
    tile: int | Sequence[int] | None = None,
    batch: int | None = None,
    force: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    backend: str = "auto",
    device: str = "auto",
    progress: bool = False,
    say: Say = print,
) -> list[Outcome]:
    """Segment files, folders or globs into ``out``; one bad input does not stop the others.

    Args:
        models: Model(s) or their folders; several average their probabilities.
        inputs: files, folders, ZIP archives or patterns, as a shell would pass them; DICOM series one by one as
            ``FOLDER/series=UID``; a text file (``.txt``) that lists such inputs, one a line.
        out: folder for the label maps, called by the path of their input below what was given, without suffix; made if need be.
        format: of the label maps: ``"same"`` as the input (for DICOM ``"dicom-seg"``), ``"nifti"``, ``"png"``, ``"tiff"``,
            ``"dicom-seg"``, ``"dicom-labelmap"`` or ``"rtstruct"``.
        probabilities: write them to ``out/probabilities``, too.
        uncertainty: write maps of it to ``out/uncertainty``, too.
        overlays: write pictures with the outlines to ``out/overlays``, too.
        tta: average over mirrored and turned copies, too (``inference.mirror`` and ``quarter_turns`` of the plan).
        overlap: of tiles, 0 … <1; default: the plan's.
        tile: largest piece given to the network at once, one size an axis or one for all; default: the plan's.
        batch: tiles or slices given to the network at once; default: the plan's, of larger ones than it was planned for fewer.
        force: go on where an input lies outside what the Model was fitted for.
        overwrite: replace existing results; inputs are never replaced.
        resume: go on with an interrupted run into ``out``: what was made from the same content with the same models and options, and is still as
            it was made, is left alone; what differs or is damaged is made again, and said; what somebody else made or changed is refused, unless ``overwrite``.
        shard: ``"i/n"``, i from 1: do this part of the inputs only; n runs with the same inputs, on any machines, do all of them, each once.
        engine: ``"local"``: this process; ``"ray"``: the machines of a Ray cluster, which all see inputs, models and ``out`` under the same paths.
        address: ``host:port`` of the cluster's head; default: the one that this machine, or the variable ``RAY_ADDRESS``, belongs to, else one of this machine alone.
        backend: as for `predict`.
        device, progress, say: as for `train`.

    Returns:
        One Outcome for each input (done, skipped, refused or failed), with what was written or what is wrong. Where a model knows how
        its validation cases did, or with ``uncertainty``, ``out/quality.csv`` lists all label maps in ``out``, those to look at first on top.
        SIGTERM and SIGHUP end it as Ctrl-C does, with what is done listed.

    Raises:
        CpfnetError: no input at all, the models do not belong together, no such cluster, or ``out`` cannot be written; all is done, and only
            ``quality.csv`` cannot be written.
    """
    from cpfnet.inference.batch.run import predict_files as run
    from cpfnet.inference.batch.sharding import Shard

    return run(
        _models(models),
        [str(path) for path in inputs],
        Path(out),
        format=format,
        probabilities=probabilities,
        uncertainty=uncertainty,
        overlays=overlays,
        tta=tta,
        overlap=overlap,
        tile=tile,
        batch=batch,
        force=force,
        overwrite=overwrite,
        resume=resume,
        shard=None if shard is None else Shard.parse(shard),
        engine=engine,
        address=address,
        backend=backend,
        device=device,
        progress=progress,
        say=say,
    )


@require_extras()
def export(
    model: Model | PathLike,
    to: Literal["onnx", "openvino", "openvino-int8", "bundle"],
    *,
    out: PathLike | None = None,
    data: PathLike | None = None,
    overwrite: bool = False,
    progress: bool = False,
    say: Say = print,
) -> Path:
    """Write a Model for other runtimes.

    Args:
        model: a Model or its folder.
        to: ``"onnx"``: one file, for any batch and size, with labels, intensity and plan inside; ``"openvino"``: the same as .xml and .bin;
            ``"openvino-int8"``: quantised, kept only where it decides as float32 does; ``"bundle"``: a MONAI bundle, a folder.
        out: the file or folder to make; default: ``exports/`` in the Model's folder, where `predict` finds the graphs.
        data: for int8: the dataset that the Model was trained on, to calibrate with its training cases and to judge by its validation cases.
        overwrite: replace an existing ``out``.
        progress: show bars.
        say: where messages go.

    Returns:
        What was written.

    Raises:
        NetworkError: the network cannot be exported, gives something else than in torch, or is not good enough in int8.
        OutputError: ``out`` exists, has another suffix than its kind (.onnx, .xml), or cannot be written.
    """
    from cpfnet.inference.backends import exported_files
    from cpfnet.inference.torch_backend import onnx_graph

    (one,) = _models(model)
    if (data is not None) != (to == "openvino-int8"):
        raise CpfnetError(
            f"a dataset is {'needed' if data is None else 'not needed'} to export to {to}",
            where="--data",
            fix="give the dataset that the Model was trained on" if data is None else "leave it out",
        )
    if to == "openvino-int8" and out is not None:
        raise CpfnetError(
            "the int8 graph is kept beside its Model", where="--out", fix="leave it out, and copy the Model folder"
        )
    place = None if out is None else Path(out)
    suffix = {"onnx": ".onnx", "openvino": ".xml"}.get(to)
    if place is not None and suffix is not None and place.suffix != suffix:
        raise OutputError(f"the file must end in {suffix}", where=place, fix=f"write to {place}{suffix}")
    match to:
        case "onnx":
            if place is None:
                return exported_files.prepared(one, say=say)
            onnx_graph.write_onnx(one, place, overwrite=overwrite)
            return place
        case "openvino":
            return onnx_graph.write_openvino(
                one, place or exported_files.folder(one) / "network.xml", overwrite=overwrite, say=say
            )
        case "openvino-int8":
            from cpfnet.data.dataset import load
            from cpfnet.inference.torch_backend.quantise_int8 import quantise

            assert data is not None  # refused above
            return quantise(one, load(Path(data)), progress=progress, say=say)
        case "bundle":
            from cpfnet.monai_bundle.write import write_bundle

            return write_bundle(one, place or exported_files.folder(one) / "bundle", overwrite=overwrite)


@require_extras()
def evaluate(
    dataset: PathLike,
    predictions: Model | PathLike | Sequence[Model | PathLike],
    *,
    out: PathLike | None = None,
    split: str | None = None,
    threshold_on: str | None = None,
    tolerance: float = 1.0,
    guide_batch: int = 4,
    allow_missing: bool = False,
    labels: Plan | PathLike | None = None,
    device: str = "auto",
    tta: bool = False,
    force: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    say: Say = print,
) -> Scores:
    """Score predictions, or Models, against a dataset's labels.

    Args:
        dataset: as for `check`.
        predictions: a folder of label maps, each called as its case or image; or Model(s), which then predict.
        out: folder for ``scores.csv``, ``scores.json``, ``report.html`` and, with Models, ``predictions/``.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; default: the labelled test cases, else all labelled ones. ``"val"`` means the cases
            that validated the Models, where they know them, whatever the dataset calls so.
        threshold_on: a split, ``"train"`` or ``"val"`` (as for ``split``): Models take the threshold with the best mean Dice over its cases instead of their
            own; none of them may be among those scored.
        tolerance: of NSD, mm (pixels where there are no millimetres).
        guide_batch: cases pooled for the batch-pooled Dice.
        allow_missing: a case without prediction counts as predicted empty instead of ending in an error.
        labels: a plan whose labels to use for a folder of predictions; default: those that the dataset declares, else those
            that `plan` proposes.
        device, tta, force: as for `predict`.
        overwrite: replace what lies in ``out``.
        progress: show bars.
        say: where messages go.

    Raises:
        CpfnetError: cases that cannot be scored, each with what is wrong; or files in the way.
    """
    from tempfile import TemporaryDirectory

    from cpfnet.data.case import left_out
    from cpfnet.data.dataset import load
    from cpfnet.evaluation.evaluate import check_labels, check_request
    from cpfnet.evaluation.evaluate import evaluate as run
    from cpfnet.evaluation.report import write_report
    from cpfnet.inference import dataset_predictions as sources
    from cpfnet.inference import tune_threshold
    from cpfnet.model import is_model

    data = load(Path(dataset))
    single = Path(predictions) if isinstance(predictions, (str, Path)) else None
    models = [] if single and not is_model(single) else _models(predictions)
    chosen, which = sources.choose(data, split, models)
    protocol = {"chosen": which}
    warnings = left_out(data)
    if out is not None:
        for name in ("scores.csv", "scores.json", "report.html", *(("predictions",) if models else ())):
            _free(Path(out) / name, overwrite)
    choosing: list[Case] = []
    if models:
        definitions = models[0].plan.labels
        if threshold_on is not None:
            choosing = tune_threshold.choosing_cases(data, threshold_on, chosen, models)
        items = [sources.item_of(case, None) for case in chosen]
        check_request(items, definitions, tolerance=tolerance, guide_batch=guide_batch)
        check_labels([*items, *(sources.item_of(case, None) for case in choosing)], definitions, progress=progress)
        warnings += _for_others(models[0].plan, data, "Model", "what is scored are the Model's, by their label values")
    else:
        assert single is not None
        if threshold_on is not None:
            raise CpfnetError(
                "masks are decided already; a threshold can only be chosen for a Model",
                where=single,
                fix="give the Model instead of its masks, or leave out --threshold-on",
            )
        if labels is not None:
            definitions = (labels if isinstance(labels, Plan) else Plan.load(labels)).labels
        else:
            definitions = data.labels or _propose(data, progress=progress)[0].labels
        items, told = sources.found(data, chosen, single)
        if not allow_missing and any(item.prediction is None for item in items):
            for line in told:  # the scores, which would carry it, will not come about
                say(line)
        warnings += told
    if out is not None:
        check_writable(Path(out))
    with TemporaryDirectory(prefix="cpfnet-") as temporary:
        if models:
            decided = tune_threshold.as_fitted(models)
            if threshold_on is not None:
                models, decided = tune_threshold.chosen_on(
                    choosing,
                    threshold_on,
                    models,
                    device=device,
                    tta=tta,
                    force=force,
                    progress=progress,
                    say=say,
                )
                say(f"Threshold chosen on {threshold_on}: {decided['fitted']}")
            protocol |= decided
            folder = Path(temporary if out is None else out) / "predictions"
            items = sources.made(
                chosen,
                models,
                folder,
                device=device,
                tta=tta,
                force=force,
                overwrite=overwrite,
                progress=progress,
                say=say,
            )
            protocol["model"] = ", ".join(
                f"{m.plan.name} ({m.plan.network.name}, plan {m.plan.hash[:8]})" for m in models
            )
            for part, line, role in (
                ("train", "trained on", "the model was trained on"),
                ("validation", "validated on", "chose its epoch, and whatever else was fitted"),
            ):
                seen = {case for m in models for case in m.metrics.get("cases", {}).get(part, [])}
                known = [case.id for case in chosen if case.id in seen]
                if known:
                    warnings.append(
                        f"{len(known)} of {len(chosen)} cases carry the names of cases that {role}: scores are optimistic"
                    )
                    protocol[line] = f"{len(known)} of these cases"
        scores = run(
            items,
            definitions,
            tolerance=tolerance,
            guide_batch=guide_batch,
            allow_missing=allow_missing,
            protocol=protocol,
            progress=progress,
        )
        scores.warnings[:0] = warnings
        if out is not None:
            scores.save(out, overwrite=overwrite)
            write_report(
                scores,
                items,
                definitions,
                Path(out) / "report.html",
                title=f"{data.name}: evaluation",
                subtitle=f"{len(items)} cases, {which}",
                overwrite=overwrite,
            )
    return scores


@require_extras()
def compare(
    reports: Sequence[PathLike] | Mapping[str, Report | Sequence[Report]],
    *,
    against: str | None = None,
    out: PathLike | None = None,
    overwrite: bool = False,
) -> Comparison:
    """Compare evaluations of the same cases, pair by pair.

    Args:
        reports: folders that `evaluate` wrote, each called as its folder or, given as ``"NAME=PATH"``, so; or name → Scores or folder, or
            several of them. Several of one name are runs of one method: of the same cases (seeds) or without a common case (folds); each
            case's score is the mean over its runs.
        against: name of the reference; default: the first.
        out: folder for ``comparison.csv``, ``comparison.json`` and ``report.html``.
        overwrite: replace what lies in ``out``.

    Raises:
        CpfnetError: no scores, damaged ones, or evaluations of other cases, labels or protocols, each with what differs; or files in the way.
    """
    from cpfnet.evaluation.comparison.compare import compare as run
    from cpfnet.evaluation.comparison.load_runs import load_runs
    from cpfnet.evaluation.comparison.report import write_report

    if out is not None:
        if (Path(out) / "scores.json").exists():
            raise OutputError("holds an evaluation, with a report of its own", where=out, fix="choose another folder")
        for name in ("comparison.csv", "comparison.json", "report.html"):
            _free(Path(out) / name, overwrite)
        check_writable(Path(out))
    comparison = run(load_runs(reports), against=against)
    if out is not None:
        comparison.save(out, overwrite=overwrite)
        write_report(comparison, Path(out) / "report.html", overwrite=overwrite)
    return comparison


@require_extras()
def convert(
    dataset: PathLike,
    out: PathLike,
    *,
    to: Target,
    plan: Plan | PathLike | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Converted:
    """Write a dataset for other tools: images as NIfTI or PNG, labels as numbers, and their lists.

    Args:
        dataset: as for `check`.
        out: folder to write; must be new or empty, unless ``overwrite``.
        to: ``"nnunet"`` (raw data of nnU-Net v2 with splits), ``"monai"`` (datalist JSON with folds) or ``"csv"`` (manifest and
            dataset.yaml).
        plan: whose labels, channels and folds to use; default: what the dataset declares, else what `plan` proposes.
        overwrite: replace an earlier conversion in ``out``; nothing else is ever replaced.
        progress: show bars.

    Returns:
        The folder, the cases in it, and what is wrong with each case that is not.

    Raises:
        CpfnetError: no case can be converted, the labels' meaning is unknown, or ``out`` is in the way or cannot be written.
    """
    from cpfnet.data.dataset import load
    from cpfnet.data.export.convert import convert as run

    if plan is not None and not isinstance(plan, Plan):
        plan = Plan.load(plan)
    return run(load(Path(dataset)), Path(out), to=to, plan=plan, overwrite=overwrite, progress=progress)


def _propose(
    data: Dataset,
    *,
    modality: str | None = None,
    network: str | None = None,
    weights: str | None = None,
    memory: Memory | None = None,
    progress: bool = False,
) -> tuple[Plan, dict[str, str]]:
    from cpfnet.planner.fingerprint import fingerprint
    from cpfnet.planner.proposal import propose

    found = fingerprint(data, progress=progress)
    return propose(found, data, modality=modality, network=network, weights=weights, memory=memory)


def _for_others(plan: Plan, data: Dataset, whose: str, then: str) -> list[str]:
    """Where a plan was made for another task than the data set declares: their values may agree all the same.

    Args:
        plan: the plan.
        data: the data set.
        whose: "plan" or "Model".
        then: what follows of it.
    """
    told = []
    if data.labels is not None:
        own, theirs = ([one.name for one in labels.classes] for labels in (plan.labels, data.labels))
        if own != theirs:
            told.append(f"classes are {', '.join(theirs)} here, and {', '.join(own)} in the {whose}")
    if data.modality is not None and data.modality != plan.modality:
        told.append(f"images are {data.modality} here, and {plan.modality} in the {whose}")
    return [f"{'; '.join(told)}: {then}"] if told else []


def _models(models: Model | PathLike | Sequence[Model | PathLike]) -> list[Model]:
    from cpfnet.model import Model

    several = [models] if isinstance(models, (Model, str, Path)) else list(models)
    return [m if isinstance(m, Model) else Model.load(m) for m in several]


def _free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise OutputError("exists already", where=path, fix="choose another name, or pass --overwrite")
