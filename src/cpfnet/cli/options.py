"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATASET = typer.Argument(
    metavar="DATASET", help="Folder, dataset.yaml, CSV manifest or datalist JSON.", show_default=False
)
Dataset = Annotated[Path, DATASET]
PLAN, PLACE, EARLIER = "What is planned", "Where it runs", "What was done before"
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
