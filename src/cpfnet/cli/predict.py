"""``cpfnet predict``: images into masks."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cpfnet.cli.console import shows_progress, table
from cpfnet.cli.options import EARLIER, PLACE, AllowImport, Backend, Device, Overwrite
from cpfnet.errors import CpfnetError
from cpfnet.text import printable

logger = logging.getLogger(__name__)

WRITTEN, HOW = "What is written", "How it is predicted"
"""Groups of options in the help, besides those of `cpfnet.cli.options`."""


def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL... INPUT...",
            help="Models: folders, .zip files or hf://OWNER/NAME (several: an ensemble); then files, folders, ZIPs of "
            "DICOM, globs, or lists of these (.txt).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where to write the masks.", show_default=False)
    ],
    format: Annotated[
        Literal["same", "nifti", "nrrd", "seg-nrrd", "mha", "png", "tiff", "dicom-seg", "dicom-labelmap", "rtstruct"],
        typer.Option(
            metavar="FORMAT",
            help="Of the masks: same (as the input; dicom-seg for DICOM), nifti, nrrd, seg-nrrd (3D Slicer, with names "
            "and colours), mha, png, tiff, dicom-seg, dicom-labelmap or rtstruct.",
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
        float | None,
        typer.Option(help="Overlap of tiles, 0 to 0.95; default: the plan's.", rich_help_panel=HOW),
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
    allow_import: AllowImport = None,
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
    from cpfnet.inference.model_arguments import names_a_model, open_models
    from cpfnet.inference.options import OutputOptions, PredictorOptions

    models = [path for path in paths if names_a_model(path)]
    inputs = [path for path in paths if path not in models]
    for path in inputs:  # going on would silently average fewer Models
        near = _model_near(path)
        if near is not None:
            raise CpfnetError("no such Model or input", where=path, fix=f"did you mean the Model {str(near)!r}?")
    if not models:
        raise CpfnetError(
            "no Model among the arguments",
            where=paths[0],
            fix="give the folder that `cpfnet train … -o MODEL` wrote, or the whole file of `cpfnet pack`, then the "
            "inputs",
        )
    stray = [path for path in paths[: max(map(paths.index, models))] if path not in models]
    if stray:
        raise CpfnetError("stands before a Model and is none", where=stray[0], fix="give Models first, then the inputs")
    if not inputs:
        raise CpfnetError("no input given", fix="cpfnet predict MODEL INPUT... -o DIR")
    options = PredictorOptions(
        device=device,
        backend=backend,
        tta=tta,
        overlap=overlap,
        tile=None if tile is None else _sizes(tile),
        batch=batch,
        force=force,
        allow_import=allow_import or [],
    )
    output = OutputOptions(
        format=format,
        probabilities=probabilities,
        uncertainty=uncertainty,
        overlays=overlays,
        overwrite=overwrite,
        resume=resume,
    )
    loaded = open_models(models)
    outcomes = api.predict_files(
        loaded,
        inputs,
        out,
        options,
        output,
        shard=shard,
        engine=engine,
        address=address,
        progress=shows_progress(),
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
        why = why.removeprefix("not known: ").removeprefix("none: ")
        logger.info("Masks are not compared with validation cases: %s", why)
    already_done = sum(outcome.already_done for outcome in outcomes)
    more = f" ({already_done} of them by an earlier run, left as they were)" if already_done else ""
    more += f", {len(skipped)} skipped" if skipped else ""
    logger.info("%d of %d done%s, in %s", len(outcomes) - len(left), len(outcomes), more, out)
    if len(left) > len(skipped):
        raise typer.Exit(1)


def _sizes(text: str) -> int | tuple[int, ...]:
    """``512``, ``512x384``, ``64,128,128``."""
    parts = re.split("[xX×,]", text)
    if not all(part.strip().isdecimal() for part in parts):
        raise CpfnetError(f"{text!r} is no size", where="--tile", fix="write it as 512, or 512x384 (height, width)")
    sizes = tuple(map(int, parts))
    return sizes if len(sizes) > 1 else sizes[0]


def _model_near(path: Path) -> Path | None:
    """The Model that a name of nothing was probably meant to be."""
    import difflib

    from cpfnet.inference.model_arguments import names_a_model

    if path.exists() or not path.parent.is_dir():
        return None
    models = [entry.name for entry in path.parent.iterdir() if names_a_model(entry)]
    close = difflib.get_close_matches(path.name, models, n=1)
    return path.with_name(close[0]) if close else None


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
        logger.info("Each of the %d, with its figures: %s", looked_at, out / "quality.csv")
    if 2 * looked_at > len(judged) > 3:
        logger.warning(
            "%d of %d is more than half: these images may differ from those that the Model was trained on, or it had "
            "too few to compare with.",
            looked_at,
            len(judged),
        )
