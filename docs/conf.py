"""The site: Sphinx + MyST. The reference of commands and of plan.yaml is made from the code itself."""

from __future__ import annotations

import typing
from pathlib import Path

from pydantic import BaseModel

from cpfnet import __version__, planning
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

HERE = Path(__file__).parent


def _commands() -> str:
    """Every command with its options, as its help gives them."""
    import typer
    from typer.cli import get_docs_for_click

    from cpfnet.cli import app

    command = typer.main.get_command(app)
    return get_docs_for_click(obj=command, ctx=typer.Context(command), name="cpfnet", title="Commands")


def _fields(model: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, info in model.model_fields.items():
        inner = [info.annotation, *typing.get_args(info.annotation)]
        section = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if section is not None:
            rows += _fields(section, f"{prefix}{name}." if section is info.annotation else f"{prefix}{name}[].")
            continue
        default = "*required*" if info.is_required() else f"`{info.get_default(call_default_factory=True)}`"
        meaning = "; ".join(filter(None, (info.description, choices(info.annotation).replace("|", "·"))))
        rows.append(f"| `{prefix}{name}` | {default} | {meaning} |")
    return rows


def _plan() -> str:
    table = "\n".join(_fields(planning.Plan, ""))
    kinds = "\n".join(
        f"`{k.model_fields['kind'].default}`\n: {k.__doc__} Keys: {', '.join(f'`{f}`' for f in k.model_fields if f != 'kind') or 'none'}.\n"
        for k in (planning.Window, planning.ZScore, planning.Percentiles, planning.MinMax, planning.Scale)
    )
    return f"# plan.yaml\n\nUnknown keys and wrong values are refused with their line.\n\n| key | default | meaning |\n|---|---|---|\n{table}\n\n## Intensity\n\n{kinds}"


for name, text in (("commands", _commands()), ("plan", _plan())):
    (HERE / "reference" / f"{name}.md").write_text(text, encoding="utf-8")
