"""The commands: arguments in, verbs called, messages out. Heavy libraries load only when a command needs them."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

import cpfnet
from cpfnet.cli import compare as cli_compare
from cpfnet.cli import export
from cpfnet.cli import weights as cli_weights
from cpfnet.cli.console import complain, line, put_json, say, set_up_streams, table
from cpfnet.errors import CpfnetError, complaint, lacks_memory, telling_what_lacks
from cpfnet.text import printable


class Commands(TyperGroup):
    """Usage errors repeat what was typed, or what a pattern of the shell found."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if hasattr(error, "format_message"):  # typer's; the class differs from version to version
                error.message = printable(error.message)  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    name="cpfnet",
    cls=Commands,
    help="Medical-image segmentation built on CPFNet: from a folder of scans and masks to masks that a clinic can use.\n\n"
    "In order: doctor, check, plan, train, predict, evaluate, compare, export. `cpfnet COMMAND --help` shows examples.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(cli_weights.app, name="weights")

DATASET = typer.Argument(
    metavar="DATASET", help="Folder, dataset.yaml, CSV manifest or datalist JSON.", show_default=False
)
Dataset = Annotated[Path, DATASET]
PLAN, PLACE, EARLIER = "What is planned", "Where it runs", "What was done before"
WRITTEN, HOW = "What is written", "How it is predicted"
SCORED, MODELS = "What is scored, and how", "Where Models predict"
"""Groups of options in the help."""
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=PLACE)]
Backend = Annotated[
    str,
    typer.Option(
        rich_help_panel=PLACE,
        help="What runs the network: auto (the fastest that decides as float32 does), torch, torch-bf16, onnx, openvino, openvino-bf16 or openvino-int8.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the plan, e.g. training.batch=8; may repeat.",
        rich_help_panel=PLAN,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.", rich_help_panel=EARLIER)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cpfnet {cpfnet.__version__}")
        raise typer.Exit


@app.callback()
def every(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    pass


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Tell what this installation can do, and how to mend what it lacks.

    Examples:

    - `cpfnet doctor`
    """
    from cpfnet.installation import doctor as run

    checks = run()
    if as_json:
        put_json([check.as_dict() for check in checks])
        return
    colours = {"ok": "", "lacks": "yellow", "missing": "red"}
    rows = [[c.name, c.status, c.detail + (f"\n→ {c.mend}" if c.mend else "")] for c in checks]
    table("This installation", ["what", "", "found"], rows, styles=[colours[c.status] for c in checks])
    if any(check.status == "missing" for check in checks):
        raise typer.Exit(1)


@app.command()
def check(
    dataset: Dataset,
    as_json: AsJson = False,
    html: Annotated[
        Path | None, typer.Option(metavar="PAGE", help="Also write a page with pictures of the worst cases.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read; default: one a core.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Find every problem of a dataset, each with its mend. Exit code 1 if any is an error.

    Examples:

    - `cpfnet check data/`
    - `cpfnet check data/ --html check.html`
    - `cpfnet check dataset.yaml --json`
    """
    from cpfnet import api

    findings = api.check(dataset, html=html, workers=workers, progress=not as_json, overwrite=overwrite)
    if as_json:
        put_json([finding.as_dict() for finding in findings])
    else:
        _print_findings(findings)
    if html is not None and not as_json:
        say(f"Page: {html}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _print_findings(findings: list[Any]) -> None:
    colours = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    for severity, colour in colours.items():
        group = [finding for finding in findings if finding.severity == severity]
        if group:
            line(f"{len(group)} {severity}{'s' if len(group) > 1 else ''}", colour)
        for finding in group:
            lines = [f"  {finding.where}: {finding.what}"]
            lines += [
                f"    {name}: {len(cases)} case{'s' * (len(cases) > 1)} ({', '.join(cases[:6])}{' …' * (len(cases) > 6)})"
                for name, cases in finding.variants.items()
            ]
            line("\n".join([*lines, f"    → {finding.mend}"]))
    if not findings:
        line("Nothing found: the dataset is fine.", "green")


@app.command()
def plan(
    dataset: Dataset,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where to write the plan.")] = None,
    modality: Annotated[
        str | None,
        typer.Option(
            help="ct mr pet fundus dermoscopy endoscopy microscopy oct xray ultrasound other; default: declared or guessed.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    network: Annotated[str | None, typer.Option(help="Plan for this network.", rich_help_panel=PLAN)] = None,
    weights: Annotated[
        str | None, typer.Option(help="imagenet, none (from scratch), or a file.", rich_help_panel=PLAN)
    ] = None,
    settings: Settings = None,
    preview: Annotated[
        Path | None, typer.Option(help="Write a PNG of 16 augmented samples with their masks here.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Fingerprint the data and propose a plan.yaml, with the reason beside each choice.

    Examples:

    - `cpfnet plan data/`
    - `cpfnet plan data/ -o plan.yaml --modality ct --preview samples.png`
    """
    from cpfnet import api

    out = out or Path("plan.yaml")
    proposed = api.plan(
        dataset,
        out=out,
        modality=modality,
        network=network,
        weights=weights,
        settings=settings or [],
        preview=preview,
        overwrite=overwrite,
        progress=True,
        say=say,
    )
    spatial, classes, epochs = proposed.spatial, len(proposed.labels.classes), proposed.training.epochs
    say(
        f"{out}: {proposed.modality} {proposed.source}, {classes} class{'es' * (classes != 1)}, {spatial.mode}, "
        f"patch {'×'.join(map(str, spatial.patch))}, network {proposed.network.name}, {epochs} epoch{'s' * (epochs != 1)}"
    )
    if preview is not None:
        say(f"{preview}: 16 augmented samples")
    say(f"Next: read it, change what you like, then  cpfnet train {dataset} -o MODEL --plan {out}")


@app.command()
def train(
    dataset: Dataset,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="MODEL", help="The Model folder to write.", show_default=False)
    ],
    plan: Annotated[
        Path | None, typer.Option(help="plan.yaml; default: what `cpfnet plan` proposes.", rich_help_panel=PLAN)
    ] = None,
    fold: Annotated[int | None, typer.Option(min=0, help="Fold to validate on, from 0.", rich_help_panel=PLAN)] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the plan's.", rich_help_panel=PLAN)] = None,
    settings: Settings = None,
    network: Annotated[str | None, typer.Option(help="cpfnet, cpfnet-hr, unet, …", rich_help_panel=PLAN)] = None,
    weights: Annotated[
        str | None, typer.Option(help="imagenet, none (from scratch), or a file.", rich_help_panel=PLAN)
    ] = None,
    device: Device = "auto",
    devices: Annotated[
        int,
        typer.Option(
            min=1,
            help="GPUs of each machine that share every batch; with --device cpu: processes.",
            rich_help_panel=PLACE,
        ),
    ] = 1,
    nodes: Annotated[
        int, typer.Option(min=1, help="Machines; start it by torchrun or srun.", rich_help_panel=PLACE)
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.", rich_help_panel=EARLIER)
    ] = False,
    init: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Fine-tune from this Model.", rich_help_panel=EARLIER)
    ] = None,
) -> None:
    """Train a Model and write a report beside it.

    Examples:

    - `cpfnet train data/ -o model`
    - `cpfnet train data/ -o model --plan plan.yaml --fold 1 --epochs 50`
    - `cpfnet train data/ -o model --weights none --set training.batch=8`
    - `cpfnet train data/ -o model --devices 4`
    - `cpfnet train data/ -o model --resume`
    """
    from cpfnet import api

    try:
        api.train(
            dataset,
            out,
            plan=plan,
            fold=fold,
            epochs=epochs,
            settings=settings or [],
            network=network,
            weights=weights,
            device=device,
            devices=devices,
            nodes=nodes,
            resume=resume,
            init=init,
            progress=True,
            say=say,
        )
    except KeyboardInterrupt as stop:  # typer would make all of them 130
        raise typer.Exit(128 + getattr(stop, "number", signal.SIGINT)) from None


def _sizes(text: str) -> int | tuple[int, ...]:
    """``512``, ``512x384``, ``64,128,128``."""
    parts = re.split("[xX×,]", text)
    if not all(part.strip().isdecimal() for part in parts):
        raise CpfnetError(f"{text!r} is no size", where="--tile", mend="write it as 512, or 512x384 (height, width)")
    sizes = tuple(map(int, parts))
    return sizes if len(sizes) > 1 else sizes[0]


@app.command(no_args_is_help=True)
def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL... INPUT...",
            help="Model folders (several: an ensemble), then files, folders, ZIPs of DICOM, globs, or lists of these (.txt).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where to write the masks.", show_default=False)
    ],
    format: Annotated[
        Literal["same", "nifti", "png", "tiff", "dicom-seg", "dicom-labelmap", "rtstruct"],
        typer.Option(
            metavar="FORMAT",
            help="Of the masks: same (as the input; dicom-seg for DICOM), nifti, png, tiff, dicom-seg, dicom-labelmap or rtstruct.",
            rich_help_panel=WRITTEN,
        ),
    ] = "same",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the probabilities, too.", rich_help_panel=WRITTEN)
    ] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Write maps of the uncertainty, too.", rich_help_panel=WRITTEN)
    ] = False,
    overlays: Annotated[
        bool,
        typer.Option("--overlays", help="Write a picture with the outlines for each input.", rich_help_panel=WRITTEN),
    ] = False,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta", help="Average over mirrored and turned copies (slower, a little better).", rich_help_panel=HOW
        ),
    ] = False,
    overlap: Annotated[
        float | None, typer.Option(min=0, max=0.95, help="Overlap of tiles; default: the plan's.", rich_help_panel=HOW)
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Largest piece given to the network, such as 512 or 512x384 (3-D: 64x128x128); default: the plan's.",
            rich_help_panel=HOW,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tiles or slices at once; default: the plan's, of larger ones fewer.", rich_help_panel=HOW
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Go on where an input lies outside what the Model was fitted for.", rich_help_panel=HOW
        ),
    ] = False,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with an interrupted run: leave alone what is done already.", rich_help_panel=EARLIER
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Do this part of the inputs only, such as 3/8, for job arrays.", rich_help_panel=PLACE
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Where: this process, or the machines of a Ray cluster.", rich_help_panel=PLACE),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Of the cluster's head; default: the cluster that this machine is part of.",
            rich_help_panel=PLACE,
        ),
    ] = None,
    backend: Backend = "auto",
    device: Device = "auto",
) -> None:
    """Segment images into masks that line up with them. Exit code 1 if any input failed or was refused.

    Examples:

    - `cpfnet predict model scan.nii.gz -o masks`
    - `cpfnet predict fold0 fold1 images/ -o masks --overlays`
    - `cpfnet predict model studies/ -o masks --format rtstruct`
    - `cpfnet predict model studies/ -o masks --shard 3/8 --resume`
    - `cpfnet predict model studies.txt -o masks --engine ray --address 10.0.0.1:6379`
    """
    from cpfnet import api
    from cpfnet.model import Model, is_model

    models = [path for path in paths if is_model(path)]
    inputs = [path for path in paths if path not in models]
    for path in inputs:  # going on would silently average fewer Models
        near = _model_near(path)
        if near is not None:
            raise CpfnetError("no such Model or input", where=path, mend=f"did you mean the Model {str(near)!r}?")
    if not models:
        raise CpfnetError(
            "no Model among the arguments",
            where=paths[0],
            mend="give the folder that `cpfnet train … -o MODEL` wrote, then the inputs",
        )
    stray = [path for path in paths[: max(map(paths.index, models))] if path not in models]
    if stray:
        raise CpfnetError(
            "stands before a Model and is none", where=stray[0], mend="give Models first, then the inputs"
        )
    if not inputs:
        raise CpfnetError("no input given", mend="cpfnet predict MODEL INPUT... -o DIR")
    loaded = [Model.load(path) for path in models]
    outcomes = api.predict_files(
        loaded,
        inputs,
        out,
        format=format,
        probabilities=probabilities,
        uncertainty=uncertainty,
        overlays=overlays,
        tta=tta,
        overlap=overlap,
        tile=None if tile is None else _sizes(tile),
        batch=batch,
        force=force,
        overwrite=overwrite,
        resume=resume,
        shard=shard,
        engine=engine,
        address=address,
        backend=backend,
        device=device,
        progress=True,
        say=say,
    )
    left = [outcome for outcome in outcomes if outcome.status != "done"]
    skipped = [outcome for outcome in left if outcome.status == "skipped"]
    if left:
        table(
            "Not done",
            ["input", "", "why"],
            [[name := printable(str(o.path)), o.status, o.message.removeprefix(f"{name}: ")] for o in left],
            styles=["yellow" if o in skipped else "red" for o in left],
        )
    _print_first(outcomes, out)
    if unknown := [model for model in loaded if model.fitted.quality is None]:
        why = (unknown[0].metrics.get("fitting") or {}).get("quality", "the Model does not say why")
        say(f"Masks are not compared with validation cases: {why.removeprefix('not known: ').removeprefix('none: ')}")
    there = sum(outcome.there for outcome in outcomes)
    more = f" ({there} of them by an earlier run, left as they were)" if there else ""
    more += f", {len(skipped)} skipped" if skipped else ""
    say(f"{len(outcomes) - len(left)} of {len(outcomes)} done{more}, in {out}")
    if len(left) > len(skipped):
        raise typer.Exit(1)


def _print_first(outcomes: list[Any], out: Path) -> None:
    """The predictions to look at first, if there are such."""
    from cpfnet.inference.quality.review_list import summary

    judged = {printable(o.output.relative_to(out).as_posix()): o.quality for o in outcomes if o.quality}
    rows = summary(judged)
    if not rows:
        return
    shown = rows[:20]
    table(
        "Look at these first",
        ["mask", "estimated Dice", "why"],
        [list(row) for row in shown],
        styles=["yellow"] * len(shown),
    )
    looked_at = sum(bool(quality.look) for quality in judged.values())
    if looked_at > len(rows) or len(rows) > len(shown):
        say(f"Each of the {looked_at}, with its figures: {out / 'quality.csv'}")
    if 2 * looked_at > len(judged) > 3:
        say(
            f"{looked_at} of {len(judged)} is more than half: these images may differ from those that the Model was trained on, or it had too few to "
            "compare with."
        )


def _model_near(path: Path) -> Path | None:
    """The Model that a name of nothing was probably meant to be."""
    import difflib

    from cpfnet.model import is_model

    if path.exists() or not path.parent.is_dir():
        return None
    models = [entry.name for entry in path.parent.iterdir() if is_model(entry)]
    close = difflib.get_close_matches(path.name, models, n=1)
    return path.with_name(close[0]) if close else None


@app.command(no_args_is_help=True)
def evaluate(
    dataset: Dataset,
    predictions: Annotated[
        list[Path],
        typer.Argument(
            metavar="PREDICTIONS|MODEL...", help="A folder of masks, or Models, which then predict.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Write scores.csv, scores.json and report.html here."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, val, test or all; default: labelled test cases, else all. Of a Model, val means the cases that validated it.",
            rich_help_panel=SCORED,
        ),
    ] = None,
    threshold_on: Annotated[
        str | None,
        typer.Option(
            help="Take the threshold with the best mean Dice over this split (train or val); default: as fitted.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Of NSD: mm, or pixels where there are no mm.", rich_help_panel=SCORED)
    ] = 1.0,
    guide_batch: Annotated[
        int, typer.Option(min=1, help="Cases pooled for the guide's own metric.", rich_help_panel=SCORED)
    ] = 4,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing", help="Count a case without prediction as predicted empty.", rich_help_panel=SCORED
        ),
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="PLAN",
            help="plan.yaml with the labels of a folder of masks; default: the dataset's.",
            rich_help_panel=SCORED,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=MODELS)] = "auto",
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over mirrored and turned copies.", rich_help_panel=MODELS)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on outside what they were fitted for.", rich_help_panel=MODELS)
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Score masks against labels: per case and class, with intervals and counts, and a report.

    Examples:

    - `cpfnet evaluate data/ masks/ -o scores`
    - `cpfnet evaluate data/ model -o scores --split test`
    - `cpfnet evaluate drive.yaml model -o scores --split test --threshold-on train`
    """
    from cpfnet import api
    from cpfnet.evaluation.tables import console_table

    scores = api.evaluate(
        dataset,
        predictions[0] if len(predictions) == 1 else list(predictions),
        out=out,
        split=split,
        threshold_on=threshold_on,
        tolerance=tolerance,
        guide_batch=guide_batch,
        allow_missing=allow_missing,
        labels=labels,
        device=device,
        tta=tta,
        force=force,
        overwrite=overwrite,
        progress=True,
        say=say,
    )
    columns, rows = console_table(scores)
    table("Mean over cases", columns, rows)
    for warning in scores.warnings:
        say(f"Note: {warning}")
    if out is not None:
        say(f"Report: {out / 'report.html'}")


app.command(no_args_is_help=True)(cli_compare.compare)
app.command(no_args_is_help=True)(export.export)


@app.command(no_args_is_help=True)
def convert(
    dataset: Dataset,
    to: Annotated[Literal["nnunet", "monai", "csv"], typer.Option("--to", help="Whom for.", show_default=False)],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="A new or empty folder to write.", show_default=False)
    ],
    plan: Annotated[
        Path | None,
        typer.Option(help="plan.yaml with the labels and folds; default: what is declared, else what `plan` proposes."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier conversion in DIR.")] = False,
) -> None:
    """Write a dataset for nnU-Net, MONAI or any tool that reads NIfTI and PNG. Exit code 1 if any case failed.

    Examples:

    - `cpfnet convert studies/ --to nnunet -o nnUNet_raw/Dataset101_Liver`
    - `cpfnet convert dataset.yaml --to csv -o liver --plan plan.yaml`
    """
    from cpfnet import api

    done = api.convert(dataset, out, to=to, plan=plan, overwrite=overwrite, progress=True, say=say)
    if done.failures:
        table(
            "Not converted",
            ["case", "why"],
            list(map(list, done.failures.items())),
            styles=["red"] * len(done.failures),
        )
    say(f"{len(done.cases)} of {len(done.cases) + len(done.failures)} cases converted, in {done.folder}")
    if done.failures:
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where to work.")] = Path("cpfnet-demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demonstration in DIR.")] = False,
) -> None:
    """Do all of it on real data that come with a dependency: check, plan, train, predict, evaluate.

    Examples:

    - `cpfnet demo`
    """
    from cpfnet.demo import demo as run

    run(out, overwrite=overwrite, say=say)


def fail(error: CpfnetError) -> NoReturn:
    """Print what is wrong, where and how to mend it, and end with exit code 1."""
    try:
        complain(str(error))
    except (MemoryError, ImportError, OSError):  # where memory is short, rich may not load either
        print(f"error: {printable(str(error), keep=chr(10))}", file=sys.stderr)
    sys.exit(1)


def main() -> None:
    """Entry point; where memory does not even suffice to say so at length, it is said briefly."""
    try:
        _main()
    except MemoryError:
        os.write(2, b"error: the memory does not suffice\n")
        sys.exit(1)


def _main() -> None:
    """Every foreseeable failure ends in one message, never in a traceback."""
    set_up_streams()
    try:
        with telling_what_lacks():
            app()
    except CpfnetError as error:
        fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        fail(_told(error))


def _told(error: Exception) -> CpfnetError:
    """What a library or the system raised, for whoever reads only this."""
    if lacks_memory(error):
        return CpfnetError(
            f"the memory does not suffice: {complaint(error)}",
            mend="close other programs, allow this one more (ulimit -v, the scheduler's --mem), or give it less at once "
            "(predict --tile and --batch, train --set training.batch=1)",
        )
    if isinstance(error, OSError):
        return CpfnetError(
            error.strerror or str(error),
            where=error.filename,
            mend="free some space, or check the path and its permissions",
        )
    if os.environ.get("CPFNET_DEBUG"):
        raise error
    return CpfnetError(
        f"{type(error).__name__}: {complaint(error)}",
        mend="this is a defect of cpfnet: run again with CPFNET_DEBUG=1 and report what it prints",
    )
