"""The site: Sphinx + MyST. The reference of commands and of plan.yaml is made from the code itself."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path

from pydantic import BaseModel

from cpfnet import __version__, planning
from cpfnet.data.dataset_yaml import Declaration
from cpfnet.settings import choices

project = "cpfnet"
author = "The cpfnet authors"
copyright = "2026, The cpfnet authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"

html_theme = "pydata_sphinx_theme"
html_title = "cpfnet"
html_theme_options = {"show_prev_next": True, "secondary_sidebar_items": ["page-toc"], "navigation_with_keys": False}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {page: [] for page in ("index", "tutorial", "zh/tutorial", "zh/the-guide")}  # nothing to navigate there
html_show_sourcelink = False

HERE = Path(__file__).parent


def setup(app: typing.Any) -> None:
    """Links to files outside docs/, which are no pages of the site, become downloads."""

    def downloads(app: typing.Any, page: str, source: list[str]) -> None:
        link = r"(?<!!)(\[[^\]]*\])\(((?:\.\./)+(?:benchmarks|recipes)/[^)#]+)(?:#[^)]*)?\)"
        source[0] = re.sub(link, r"\1(path:\2)", source[0])

    app.connect("source-read", downloads)


def _commands() -> str:
    """Every command with its options, as its help gives them."""
    import typer
    from typer.cli import get_docs_for_click

    from cpfnet.cli.app import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="cpfnet", title="Commands")
    return _whole_sentences(text, command, "cpfnet")


def _whole_sentences(text: str, command: typing.Any, prefix: str) -> str:
    """Lists of commands with links, and with what was cut off after 45 characters."""
    for name, inner in getattr(command, "commands", {}).items():
        sentence = inner.help.split("\n\n")[0].replace("\n", " ")
        line = f"* [`{name}`](#{prefix}-{name}): {sentence}"
        text = re.sub(rf"^\* `{name}`: .*$", lambda _, line=line: line, text, flags=re.MULTILINE)
        text = _whole_sentences(text, inner, f"{prefix}-{name}")
    return text


def _section(annotation: typing.Any) -> tuple[type[BaseModel] | None, str]:
    """The settings class inside a type, and what stands after its key: [] for a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    mark = "[]" if typing.get_origin(annotation) is tuple else ""
    for part in typing.get_args(annotation):
        inner, inside = _section(part)
        if inner is not None:
            return inner, mark + inside
    return None, ""


def _fields(model: type[BaseModel], prefix: str = "", *, whole: tuple[str, ...] = ()) -> list[str]:
    """One row a key; the keys in `whole` are not taken apart."""
    rows = []
    for name, info in model.model_fields.items():
        section, mark = _section(info.annotation)
        if section is not None and name not in (*whole, "intensity"):
            rows += _fields(section, f"{prefix}{name}{mark}.")
            continue
        default = "*required*"
        if not info.is_required():
            default = f"`{json.dumps(info.get_default(call_default_factory=True))}`"
        below = "see below" if section is not None else ""
        meaning = "; ".join(filter(None, (info.description, below, choices(info.annotation).replace(" | ", " · "))))
        rows.append(f"| `{prefix}{name}` | {default} | {meaning} |")
    return rows


def _table(rows: list[str]) -> str:
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def _plan() -> str:
    kinds = "\n".join(
        f"`{k.model_fields['kind'].default}`\n: {k.__doc__}"
        + (f" Keys: {', '.join(f'`{f}`' for f in k.model_fields if f != 'kind')}." if len(k.model_fields) > 1 else "")
        + "\n"
        for k in (planning.Window, planning.ZScore, planning.Percentiles, planning.MinMax, planning.Scale)
    )
    return (
        "# plan.yaml\n\n`cpfnet plan` writes it, with the reason above each choice "
        "([how to change it](../how-to/plan.md)). Unknown keys and wrong values are refused with their "
        "line. `[]` stands for each entry of a list.\n\n"
        f"{_table(_fields(planning.Plan))}\n\n## channels[].intensity\n\n`kind` is one of:\n\n{kinds}"
    )


def _dataset() -> str:
    return (
        "# dataset.yaml\n\nAll keys may be missing; [examples](../how-to/data.md). Unknown keys and wrong values are "
        f"refused with their line.\n\n{_table(_fields(Declaration, whole=('labels',)))}\n\n## Patterns\n\n`{{case}}` "
        "and `{patient}` each stand for one name (anything but `/`); `*` and `?` match as in file names. Patterns are "
        "relative to `root`. What a pattern for labels or regions finds belongs to the image with the same names.\n\n"
        "## labels\n\nEvery key but those below names a class; its value is a file value, a colour such as "
        "`'#ff0000'`, the name of a DICOM segment or ROI (`'GTV*'`; case does not count), a list of these, or a "
        "mapping "
        "`{values: …, names: …, write: …, tubular: …}`. "
        "The long form of [plan.yaml](plan.md) is understood, too.\n\n"
        + _table([row for row in _fields(planning.Labels, whole=("classes",)) if "`classes`" not in row])
        + "\n| `tubular` | `[]` | names of classes that are thin and branching (vessels): clDice and thin recall are "
        "reported too |\n"
    )


for name, text in (("commands", _commands()), ("plan", _plan()), ("dataset", _dataset())):
    (HERE / "reference" / f"{name}.md").write_text(text, encoding="utf-8")
