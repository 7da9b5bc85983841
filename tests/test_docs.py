"""What README and docs show must exist: every command with its options, YAML key, import, and file that is linked."""

from __future__ import annotations

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer
from ruamel.yaml import YAML

from cpfnet.cli.app import app
from cpfnet.data.dataset_yaml import Declaration
from cpfnet.errors import PlanError
from cpfnet.planning import Plan
from cpfnet.settings import validate
from tests.corpus.settings import PLAN

ROOT = Path(__file__).parents[1]
GENERATED = {"commands.md", "plan.md", "dataset.md"}
PAGES = [
    p for p in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*.md")) if p.name not in GENERATED
]
MEASUREMENTS = [*ROOT.glob("benchmarks/**/*.md")]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pages
def test_commands_are_understood(page: Path) -> None:
    root = typer.main.get_command(app)
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for text in re.findall(r"\bcpfnet (?!&&).*?(?=;|\||>|$)", line.partition(" #")[0]):
                command, words = root, shlex.split(re.sub(r"\$\w+", "0", text))[1:]  # a shell's variable is any number
                while words and words[0] in getattr(command, "commands", {}):
                    command = command.commands[words.pop(0)]
                assert command is not root, text
                parameters = command.make_context("cpfnet", words).params  # raises on what it does not know
                PLAN.with_settings(parameters.get("settings") or [])


@pages
def test_settings_files_are_valid(page: Path) -> None:
    written = [*blocks(page, "yaml"), *re.findall(r"`(labels: \{.*?\})`", page.read_text(encoding="utf-8"))]
    for text in written:
        data = YAML(typ="safe").load(text)
        try:
            validate(Declaration, data, where=text)
        except PlanError:  # then it is part of a plan
            validate(Plan, PLAN.model_dump(mode="json") | data, where=text)


@pages
def test_python_compiles_and_imports_what_there_is(page: Path) -> None:
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text, str(page))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "cpfnet":
                home = import_module(node.module or "")
                for name in node.names:
                    assert hasattr(home, name.name) or import_module(f"{node.module}.{name.name}"), name.name


@pytest.mark.parametrize("page", [*PAGES, *MEASUREMENTS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http") and Path(target).name not in GENERATED:
            assert (page.parent / target).exists(), target
