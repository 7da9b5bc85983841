"""What ``cpfnet.<verb>`` and the commands do; a command is its verb and nothing more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cpfnet.errors import CpfnetError, OutputError, require_extras
from cpfnet.files import check_free, check_writable
from cpfnet.inference.options import OutputOptions, PredictorOptions, names_options
from cpfnet.planning import Plan, VolumeMode
from cpfnet.registry import module_names

if TYPE_CHECKING:
    from cpfnet.data.checks.check import Finding
    from cpfnet.data.export.convert import Converted
    from cpfnet.data.export.manifests import Target
    from cpfnet.evaluation.comparison.load_runs import Report
    from cpfnet.evaluation.comparison.result import Comparison
    from cpfnet.evaluation.scores import Scores
    from cpfnet.image import Image, Segmentation
    from cpfnet.inference.batch.run import Outcome
    from cpfnet.inference.configurations import Configurations
    from cpfnet.inference.cross_validation import CrossValidation
    from cpfnet.inference.model_arguments import ModelArgument
    from cpfnet.model import Model
    from cpfnet.serve.options import ServeOptions

logger = logging.getLogger(__name__)

PathLike = Path | str


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
    hours: float | None = None,
    first_stage: bool = False,
    mode: VolumeMode | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    preview: PathLike | None = None,
    allow_import: str | Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = False,
) -> Plan:
    """Fingerprint the data and propose how to train on them.

    Args:
        dataset: as for `check`.
        out: write the plan here, with the reason beside each choice.
        modality: what the images are; default: declared by the dataset, else guessed.
        network, weights: to plan for; default: what suits the data, from ImageNet weights where the network takes them.
        device: what will train: ``"auto"`` (a GPU where there is one that PyTorch can use), ``"cpu"``, ``"cuda"`` or
            ``"cuda:1"``.
        memory: of the GPU of another machine to plan for (with ``device="cpu"`` its main memory), such as ``"24GiB"``;
            default: what is free here.
        hours: that training is to take there; default: as long as the data ask for.
        first_stage: plan on a grid so coarse that a patch sees a quarter of a volume; what that finds can be shown to a
            second stage, whose plan has ``first_stage: true``.
        mode: of volumes, ``"2d"`` (slice by slice) or ``"3d"``; default: what suits them and the machine.
        settings: to change in the proposal: ``{"training.epochs": 3}``, or ``["training.epochs=3"]`` as on the command
            line.
        preview: write a picture of 16 augmented samples here.
        allow_import: modules that may be imported for a network, encoder or loss named as ``module:name``; name those
            alone that you know: their code runs.
        overwrite: replace an existing ``out`` or ``preview``.
        progress: show a bar.

    Raises:
        CpfnetError: the dataset cannot be planned for, or a file is in the way.
    """
    from cpfnet.data.case import dataset_warnings
    from cpfnet.data.dataset import load
    from cpfnet.planner.fingerprint import fingerprint
    from cpfnet.planner.machine import Memory
    from cpfnet.planner.proposal import network_options, propose
    from cpfnet.planner.training import expected_time
    from cpfnet.settings import check_keys, is_set

    check_keys(Plan, settings)  # before the data are read
    allowed = module_names(allow_import)
    machine = Memory.found(device) if memory is None else Memory.given(memory, device)
    for path in (out, preview):
        if path is not None:
            check_free(Path(path), overwrite=overwrite)
    if network is not None:
        from cpfnet.network import zoo

        zoo.NETWORKS.check_name(network)  # a name that nothing is called by is refused before the data are read
    data = load(Path(dataset))
    for warning in dataset_warnings(data):
        logger.warning(warning)
    found = fingerprint(data, progress=progress)
    for warning in found.warnings:
        logger.warning(warning)
    proposed, reasons = propose(
        found,
        data,
        modality=modality,
        network=network,
        weights=weights,
        memory=machine,
        options=network_options(settings),
        hours=hours,
        first_stage=first_stage,
        mode=mode,
    )
    logger.info("Expected for the plan as proposed: %s.", expected_time(reasons))
    if "first_stage" in reasons and not is_set("first_stage", settings):
        logger.info("Note: %s.", reasons["first_stage"])
    if settings:
        from cpfnet.training.initial_weights import check_buildable

        proposed = proposed.with_settings(settings)
        check_buildable(proposed, allowed)
        reasons = {key: "as asked for" if is_set(key, settings) else why for key, why in reasons.items()}
    if out is not None:
        proposed.save(out, comments=reasons)
    if preview is not None:
        from cpfnet.training.samples.preview import preview as draw

        draw(data, proposed, Path(preview))
    return proposed


@require_extras()
def train(
    dataset: PathLike,
    out: PathLike,
    *,
    plan: Plan | PathLike | None = None,
    fold: int | Literal["all"] | None = None,
    epochs: int | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    network: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    resume: bool = False,
    init: PathLike | None = None,
    first_stage: Sequence[PathLike] = (),
    allow_import: str | Sequence[str] = (),
    progress: bool = False,
) -> Model:
    """Train a Model and write it, with a report, to ``out``.

    Args:
        dataset: as for `check`.
        out: the Model folder; must not exist, unless ``resume``.
        plan: default: what `plan` proposes; with ``resume``, what the run began with.
        fold: validate on this fold (from 0) of the plan's cross-validation; default: the dataset's own ``val`` split,
            else fold 0. ``"all"``: train on every case, into ``all`` in the folder ``out`` that `cross_validate` wrote,
            under its plan, for as many epochs as its folds suggest, and with what was fitted on them.
        epochs, settings, network, weights: changes to the plan (``settings`` as for `plan`; ``weights``:
            ``"imagenet"``, ``"none"`` or a file).
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        devices: GPUs, or processes on a CPU, of each machine that share every batch; the result is that of one, up to
            rounding. Under torchrun it is known.
        nodes: machines; torchrun or SLURM's srun starts the processes then.
        resume: go on with an interrupted run; ends with the same weights as a run that was never interrupted.
        init: start from this Model's weights; without ``plan`` and ``network``, the proposed plan gets its network,
            too.
        first_stage: where the plan has one, the folder of its cross-validation, or those of its Models, one a fold;
            each case is shown what those found in it that did not learn from it.
        allow_import: modules that may be imported for a network, encoder or loss named as ``module:name``; name those
            alone that you know: their code runs.
        progress: show a bar.

    Raises:
        CpfnetError: the data, plan, weights, devices or ``out`` do not allow it; a process was killed.
    """
    from cpfnet.sharing.local_folder import local_folder
    from cpfnet.training.from_dataset import train_on_dataset
    from cpfnet.training.options import PlanOptions, TrainOptions

    wanted = PlanOptions(Path(plan) if isinstance(plan, str) else plan, settings, epochs, network, weights)
    options = TrainOptions(
        fold=fold,
        device=device,
        devices=devices,
        nodes=nodes,
        resume=resume,
        init=None if init is None else local_folder(init),
        first_stage=tuple(map(local_folder, first_stage)),
        progress=progress,
        allow_import=allow_import,
    )
    if fold == "all":
        from cpfnet.training.cross_validation.all_cases import train_on_all

        return train_on_all(Path(dataset), Path(out), wanted, options)
    return train_on_dataset(Path(dataset), Path(out), wanted, options)


@require_extras()
def cross_validate(
    dataset: PathLike,
    out: PathLike,
    *,
    plan: Plan | PathLike | None = None,
    jobs: int = 1,
    epochs: int | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    network: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    resume: bool = False,
    init: PathLike | None = None,
    allow_import: str | Sequence[str] = (),
    progress: bool = False,
) -> CrossValidation:
    """Train a Model a fold, and score every case by the one that has not seen it.

    The folder is an ensemble wherever a Model is asked for. Its temperature, thresholds, smallest components and
    estimate of quality are fitted on the cases of all folds.

    Args:
        dataset: as for `check`.
        out: the folder to write; must not exist, unless ``resume``.
        plan: of all folds; default: what `plan` proposes; with ``resume``, what they began with.
        jobs: folds that are trained at once: they divide the processor's threads, and take turns on the GPUs.
        epochs, settings, network, weights: changes to the plan, as for `train`.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        resume: go on after an interruption, or after folds that failed: what is done is left as it is.
        init: start each fold from this Model's weights.
        allow_import: as for `train`.
        progress: show bars.

    Raises:
        CpfnetError: the data, plan, weights, device or ``out`` do not allow it; folds failed, once the others have
            ended.

    Example:
        >>> found = cpfnet.cross_validate("data", "cv", jobs=2)
        >>> found.scores.of("dice")["mean"]
        >>> cpfnet.predict("cv", "scan.nii.gz")
    """
    from cpfnet.sharing.local_folder import local_folder
    from cpfnet.training.cross_validation.run import cross_validate as run
    from cpfnet.training.options import PlanOptions, TrainOptions

    wanted = PlanOptions(Path(plan) if isinstance(plan, str) else plan, settings, epochs, network, weights)
    first = None if init is None else local_folder(init)
    options = TrainOptions(device=device, resume=resume, init=first, progress=progress, allow_import=allow_import)
    return run(Path(dataset), Path(out), wanted, options, jobs=jobs)


@require_extras()
def compare_configurations(
    dataset: PathLike,
    out: PathLike,
    *,
    jobs: int = 1,
    epochs: int | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    network: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    resume: bool = False,
    allow_import: str | Sequence[str] = (),
    progress: bool = False,
) -> Configurations:
    """Cross-validate volumes in 2-D and in 3-D, and keep what has the better out-of-fold Dice: one, or both.

    The folder stands for it wherever a Model is asked for. It holds a whole cross-validation in ``2d`` and one in
    ``3d``, as `cross_validate` writes them, of the same cases in the same folds.

    Args:
        dataset: as for `check`.
        out: the folder to write; must not exist, unless ``resume``.
        jobs: as for `cross_validate`.
        epochs, settings, network, weights: changes to both plans, as for `train`.
        device, resume, allow_import, progress: as for `cross_validate`.

    Raises:
        CpfnetError: images, or volumes of too few slices for 3-D; as `cross_validate`.

    Example:
        >>> found = cpfnet.compare_configurations("data", "out")
        >>> print(found.choice.chosen, found.choice.dice)
        >>> cpfnet.predict("out", "scan.nii.gz")
    """
    from cpfnet.training.cross_validation.configurations import compare_configurations as run
    from cpfnet.training.options import PlanOptions, TrainOptions

    wanted = PlanOptions(None, settings, epochs, network, weights)
    options = TrainOptions(device=device, resume=resume, progress=progress, allow_import=allow_import)
    return run(Path(dataset), Path(out), wanted, options, jobs=jobs)


@require_extras()
@names_options
def predict(
    model: ModelArgument | Sequence[ModelArgument],
    scan: Image | PathLike | Sequence[PathLike],
    options: PredictorOptions | None = None,
    *,
    probabilities: bool = False,
    uncertainty: bool = False,
) -> Segmentation:
    """Segment one scan; several models average their probabilities.

    Args:
        model: Model(s), or where they lie: folders, ZIP files of `pack`, or ``hf://OWNER/NAME[@REVISION]``.
        scan: an Image; or what `read` takes: a file, the folder or ZIP archive of a DICOM series, or several files.
        options: how they predict: device, backend, mirrored copies … (`PredictorOptions`).
        probabilities: keep them in the result.
        uncertainty: keep a map of it in the result: the entropy of the probabilities, averaged over mirrored and turned
            copies and models.

    Returns:
        The label map; its ``quality`` says how good it probably is, and why to look at it first.

    Raises:
        FormatError: the scan cannot be read.
        InputRefused: it lies outside what the Model was fitted for.

    Example:
        >>> cpfnet.predict("model", "scan.nii.gz", cpfnet.PredictorOptions(tta=True))
    """
    from cpfnet import formats
    from cpfnet.image import Image
    from cpfnet.inference.model_arguments import open_models
    from cpfnet.inference.predictor import Predictor

    image = scan if isinstance(scan, Image) else formats.read(scan)
    for warning in image.warnings:
        logger.warning("%s", warning)
    predictor = Predictor(open_models(model), options)
    return predictor.predict(image, keep_probabilities=probabilities, uncertainty=uncertainty)


@require_extras()
@names_options
def predict_files(
    models: ModelArgument | Sequence[ModelArgument],
    inputs: Sequence[PathLike],
    out: PathLike,
    options: PredictorOptions | None = None,
    output: OutputOptions | None = None,
    *,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    progress: bool = False,
) -> list[Outcome]:
    """Segment files, folders or globs into ``out``; one bad input does not stop the others.

    Args:
        models: Model(s) or their folders; several average their probabilities.
        inputs: files, folders, ZIP archives or patterns, as a shell would pass them; DICOM series one by one as
            ``FOLDER/series=UID``; a text file (``.txt``) that lists such inputs, one a line.
        out: folder for the label maps, called by the path of their input below what was given, without suffix; made if
            need be.
        options: how the Models predict: device, backend, mirrored copies … (`PredictorOptions`).
        output: what is written: format, probabilities, overlays, and what becomes of earlier results (`OutputOptions`).
        shard: ``"i/n"``, i from 1: do this part of the inputs only; n runs with the same inputs, on any machines, do
            all of them, each once.
        engine: ``"local"``: this process; ``"ray"``: the machines of a Ray cluster, which all see inputs, models and
            ``out`` under the same paths.
        address: ``host:port`` of the cluster's head; default: the one that this machine, or the variable
            ``RAY_ADDRESS``, belongs to, else one of this machine alone.
        progress: show a bar.

    Returns:
        One Outcome for each input (done, skipped, refused or failed), with what was written or what is wrong. Where a
        model knows how its validation cases did, or with ``uncertainty``, ``out/quality.csv`` lists all label maps in
        ``out``, those to look at first on top. SIGTERM and SIGHUP end it as Ctrl-C does, with what is done listed.

    Raises:
        CpfnetError: no input at all, the models do not belong together, no such cluster, or ``out`` cannot be written;
            all is done, and only ``quality.csv`` cannot be written.

    Example:
        >>> cpfnet.predict_files("model", ["scans/"], "masks", output=cpfnet.OutputOptions(overlays=True))
    """
    from cpfnet.inference.batch.run import predict_files as run
    from cpfnet.inference.model_arguments import open_models

    return run(
        open_models(models),
        [str(path) for path in inputs],
        Path(out),
        options,
        output,
        shard=shard,
        engine=engine,
        address=address,
        progress=progress,
    )


@require_extras()
def serve(
    models: ModelArgument | Sequence[ModelArgument],
    options: ServeOptions | None = None,
    *,
    started: Callable[[str, str], None] = lambda address, entrance: None,
) -> None:
    """Serve Models over HTTP on this machine, until SIGINT or SIGTERM comes.

    Args:
        models: Model(s) or where they lie; each one is served by itself, a cross-validation as an ensemble.
        options: address, store, workers, limits … (`cpfnet.serve.options.ServeOptions`).
        started: called once with the address, and with the one that lets a browser in.

    Raises:
        CpfnetError: a Model cannot be run here, or the port or the store is taken.
    """
    from cpfnet.inference.model_arguments import each_of
    from cpfnet.serve.options import ServeOptions
    from cpfnet.serve.server import serve as run

    run(each_of(models), options or ServeOptions(), started)


@require_extras()
def export(
    model: ModelArgument,
    to: Literal["onnx", "openvino", "openvino-int8", "bundle"],
    *,
    out: PathLike | None = None,
    data: PathLike | None = None,
    allow_import: str | Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Write a Model for other runtimes.

    Args:
        model: a Model or its folder.
        to: ``"onnx"``: one file, for any batch and size, with labels, intensity and plan inside; ``"openvino"``: the
            same as .xml and .bin; ``"openvino-int8"``: quantised, kept only where it decides as float32 does;
            ``"bundle"``: a MONAI bundle, a folder.
        out: the file or folder to make; default: ``exports/`` in the Model's folder, where `predict` finds the graphs.
        data: for int8: the dataset that the Model was trained on, to calibrate with its training cases and to judge by
            its validation cases.
        allow_import: modules that may be imported for a network, encoder or loss named as ``module:name``; name those
            alone that you know: their code runs. The graph that is written needs none of it; a bundle would, and is
            refused.
        overwrite: replace an existing ``out``.
        progress: show bars.

    Returns:
        What was written.

    Raises:
        NetworkError: the network cannot be exported, gives something else than in torch, or is not good enough in int8.
        OutputError: ``out`` exists, has another suffix than its kind (.onnx, .xml), or cannot be written.

    Example:
        >>> cpfnet.export("model", "onnx", out="vessels.onnx")
    """
    from cpfnet.inference.backends import exported_files
    from cpfnet.inference.model_arguments import open_model
    from cpfnet.inference.torch_backend.export import check_request, export_graph
    from cpfnet.sharing.local_folder import is_elsewhere

    if out is None and isinstance(model, (str, Path)) and is_elsewhere(model):
        raise OutputError("has no folder to keep an export in", where=model, fix="say where to write it (-o)")
    one = open_model(model).allowing(module_names(allow_import))
    place, dataset = None if out is None else Path(out), None if data is None else Path(data)
    check_request(one, to, place, dataset)
    if to == "bundle":
        from cpfnet.monai_bundle.write import write_bundle

        return write_bundle(one, place or exported_files.folder(one) / "bundle", overwrite=overwrite)
    return export_graph(one, to, out=place, data=dataset, overwrite=overwrite, progress=progress)


@require_extras()
@names_options
def evaluate(
    dataset: PathLike,
    predictions: ModelArgument | Sequence[ModelArgument],
    options: PredictorOptions | None = None,
    *,
    out: PathLike | None = None,
    split: str | None = None,
    threshold_on: str | None = None,
    tolerance: float = 1.0,
    guide_batch: int = 4,
    allow_missing: bool = False,
    label_plan: Plan | PathLike | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Scores:
    """Score predictions, or Models, against a dataset's labels.

    Args:
        dataset: as for `check`.
        predictions: a folder of label maps, each called as its case or image; or Model(s), which then predict, or the
            folder of a cross-validation.
        options: how Models predict; the backend ``"auto"`` is torch here, so that scores are the same on every machine.
        out: folder for ``scores.csv``, ``scores.json``, ``report.html`` and, with Models, ``predictions/``.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; default: the labelled test cases, else all labelled
            ones; of a cross-validation ``"val"``. That means the cases that validated the Models, where they know them,
            whatever the dataset calls so; of several folds each case is predicted by those that it validated.
        threshold_on: a split, ``"train"`` or ``"val"`` (as for ``split``): Models take the threshold with the best mean
            Dice over its cases instead of their own; none of them may be among those scored.
        tolerance: of NSD, mm (pixels where there are no millimetres).
        guide_batch: cases pooled for the batch-pooled Dice.
        allow_missing: a case without prediction counts as predicted empty instead of ending in an error.
        label_plan: whose labels to use for a folder of predictions; default: those that the dataset declares, else
            those that `plan` proposes. Models have labels of their own.
        overwrite: replace what lies in ``out``. What an interrupted evaluation had predicted there is taken without it,
            as long as images, Models and options are the same.
        progress: show bars.

    Raises:
        CpfnetError: cases that cannot be scored, each with what is wrong; or files in the way.

    Example:
        >>> cpfnet.evaluate("data", "masks", out="scores")
    """
    from cpfnet.data.dataset import load
    from cpfnet.inference.evaluate_models import ScoringOptions, evaluate_masks, evaluate_models
    from cpfnet.inference.model_arguments import default_split, names_a_model, open_models

    data, place = load(Path(dataset)), None if out is None else Path(out)
    scoring = ScoringOptions(split or default_split(predictions, data), tolerance, guide_batch, allow_missing)
    if not isinstance(predictions, (str, Path)) or names_a_model(predictions):
        if label_plan is not None:
            raise CpfnetError(
                "a Model has labels of its own; a plan can only give those of a folder of masks",
                where="--label-plan",
                fix="leave it out, or give the folder of masks instead of the Model",
            )
        return evaluate_models(
            data,
            open_models(predictions),
            scoring,
            options or PredictorOptions(),
            out=place,
            threshold_on=threshold_on,
            overwrite=overwrite,
            progress=progress,
        )
    if threshold_on is not None:
        raise CpfnetError(
            "masks are decided already; a threshold can only be chosen for a Model",
            where=predictions,
            fix="give the Model instead of its masks, or leave out --threshold-on",
        )
    plan = label_plan if label_plan is None or isinstance(label_plan, Plan) else Plan.load(label_plan)
    return evaluate_masks(
        data, Path(predictions), scoring, out=place, label_plan=plan, overwrite=overwrite, progress=progress
    )


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
        reports: folders that `evaluate` wrote, each called as its folder or, given as ``"NAME=PATH"``, so; or name →
            Scores or folder, or several of them. Several of one name are runs of one method: of the same cases (seeds)
            or without a common case (folds); each case's score is the mean over its runs.
        against: name of the reference; default: the first.
        out: folder for ``comparison.csv``, ``comparison.json`` and ``report.html``.
        overwrite: replace what lies in ``out``.

    Raises:
        CpfnetError: no scores, damaged ones, or evaluations of other cases, labels or protocols, each with what
            differs; or files in the way.
    """
    from cpfnet.evaluation.comparison.compare import compare as run
    from cpfnet.evaluation.comparison.load_runs import load_runs
    from cpfnet.evaluation.comparison.report import write_report

    if out is not None:
        if (Path(out) / "scores.json").exists():
            raise OutputError("holds an evaluation, with a report of its own", where=out, fix="choose another folder")
        for name in ("comparison.csv", "comparison.json", "report.html"):
            check_free(Path(out) / name, overwrite=overwrite)
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
        to: ``"nnunet"`` (raw data of nnU-Net v2 with splits), ``"monai"`` (datalist JSON with folds) or ``"csv"``
            (manifest and dataset.yaml).
        plan: whose labels, channels and folds to use; default: what the dataset declares, else what `plan` proposes.
        overwrite: replace an earlier conversion in ``out``; nothing else is ever replaced.
        progress: show bars.

    Returns:
        The folder, the cases in it, and what is wrong with each case that is not.

    Raises:
        CpfnetError: no case can be converted, the labels' meaning is unknown, or ``out`` is in the way or cannot be
            written.
    """
    from cpfnet.data.dataset import load
    from cpfnet.data.export.convert import convert as run

    if plan is not None and not isinstance(plan, Plan):
        plan = Plan.load(plan)
    return run(load(Path(dataset)), Path(out), to=to, plan=plan, overwrite=overwrite, progress=progress)


@require_extras()
def pack(model: ModelArgument, out: PathLike | None = None, *, overwrite: bool = False) -> Path:
    """Write a Model as one ZIP file, which may stand wherever a Model is asked for; the same Model, the same bytes.

    It holds neither images nor the names of cases.

    Args:
        model: a Model or its folder, or what else may stand there.
        out: the file to make, ``.zip``; default: called as the Model, in the current folder.
        overwrite: replace an existing one.

    Returns:
        The file.

    Raises:
        CpfnetError: no Model, a damaged one, or one that names cases.
        OutputError: ``out`` exists, has another suffix, or cannot be written.

    Example:
        >>> cpfnet.pack("model", "vessels.zip")
    """
    from cpfnet.inference.configurations import Configurations
    from cpfnet.inference.cross_validation import CrossValidation
    from cpfnet.inference.model_arguments import folder_to_share
    from cpfnet.sharing.local_folder import name_of
    from cpfnet.sharing.pack import pack as run

    folder = folder_to_share(model)
    name = name_of(model.folder if isinstance(model, (CrossValidation, Configurations)) else model)
    return run(folder, Path(f"{name}.zip" if out is None else out), overwrite=overwrite)


@require_extras()
def push(
    model: ModelArgument,
    repository: str,
    *,
    public: bool = False,
    licence: str | None = None,
    overwrite: bool = False,
) -> str:
    """Send a Model to a hub: the Model alone, by an allow-list of files, without the names of cases.

    What is sent, and what is not, is said first (`logging`). The token is that of ``hf auth login`` or ``HF_TOKEN``.

    Args:
        model: a Model or its folder, or what else may stand there.
        repository: ``OWNER/NAME``; made if need be.
        public: everybody may see it; else it is private.
        licence: of the weights, as a hub names it (``"cc-by-4.0"``); None: none is stated.
        overwrite: replace a Model that is there; the earlier one stays in the hub's history.

    Returns:
        The address with its commit, ``hf://OWNER/NAME@COMMIT``.

    Raises:
        CpfnetError: the folder holds anything else, or no whole Model; no token, no connection, or the hub refuses.
        OutputError: a Model is there already, or the repository is seen by others than asked for.

    Example:
        >>> cpfnet.push("model", "anna/vessels")
    """
    from cpfnet.inference.model_arguments import folder_to_share
    from cpfnet.sharing.address import HubAddress
    from cpfnet.sharing.push import push as run

    address = HubAddress.parse(repository)
    return str(run(folder_to_share(model), address, public=public, licence=licence, overwrite=overwrite))


@require_extras()
def pull(repository: str, out: PathLike | None = None) -> Path:
    """Fetch a Model from a hub, each file checked by its hash; a cut download goes on where it was.

    Args:
        repository: ``OWNER/NAME``, or ``OWNER/NAME@REVISION`` (a commit, tag or branch).
        out: the folder to make; default: ``NAME``. ``origin.yaml`` in it names the commit.

    Returns:
        The folder.

    Raises:
        CpfnetError: no such Model or revision, no access, no connection, or a wrong hash; nothing is left then.
        OutputError: ``out`` exists, or cannot be written.

    Example:
        >>> cpfnet.pull("anna/vessels@v1", "model")
    """
    from cpfnet.sharing.address import HubAddress
    from cpfnet.sharing.download import pull as run

    address = HubAddress.parse(repository)
    return run(address, Path(address.repository.partition("/")[2] if out is None else out))
