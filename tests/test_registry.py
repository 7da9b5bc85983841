"""Parts by name: what is loaded, and only when it is named; what is imported, and only when it is allowed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpfnet import registry
from cpfnet.errors import CodeError, NetworkError, PlanError
from cpfnet.registry import Registry, module_names


def check(name: str, part: object) -> None:
    if not callable(part):
        raise NetworkError(f"{name} is no network", fix="give a function")


@pytest.fixture
def parts() -> Registry:
    made = Registry("network", "cpfnet.tests", error=NetworkError, check=check, where="network.name")
    made.register("first", lambda: 1)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python looks into, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    registry._entry_points.cache_clear()
    yield tmp_path
    registry._entry_points.cache_clear()
    for name in set(sys.modules) - before:
        if name.split(".")[0].startswith("theirs"):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    """A module that leaves a file where it was imported."""
    mark = folder / f"{name} ran"
    file = folder / Path(*name.split(".")).with_suffix(".py")
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"open({str(mark)!r}, 'w').close()\n{text}")
    return mark


def install(folder: Path, package: str, points: str) -> None:
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cpfnet.tests]\n{points}\n")


def test_a_module_is_imported_only_where_it_is_named(parts: Registry, folder: Path) -> None:
    mark = write(folder, "theirs", "def build(): return 2\n")
    for allowed in ((), ("their",), ("theirs.more",)):
        with pytest.raises(CodeError, match=r"network\.name: the network theirs:build(.|\n)*--allow-import theirs"):
            parts.find("theirs:build", allowed)
    parts.check_name("theirs:build")
    assert parts.origin("theirs:build") == "module theirs"
    assert not mark.exists()
    assert parts.find("theirs:build", ("theirs",))() == 2
    assert mark.exists()
    with pytest.raises(CodeError, match="--allow-import theirs"):  # it is here now, and still not allowed
        parts.find("theirs:build")


def test_what_a_module_only_imports_is_not_its_own(parts: Registry, folder: Path) -> None:
    """Else the plan of a stranger could name ``theirs:system``."""
    write(folder, "theirs", "import os\nfrom os import system\nfrom theirs_part.inner import inner\nnumber = 3\n")
    write(folder, "theirs_part.inner", "def inner(): return 4\n")
    (folder / "theirs_part" / "__init__.py").write_text("from theirs_part.inner import inner\n")
    for name in ("system", "os", "number", "nothing", "inner"):
        with pytest.raises(CodeError, match=f"called {name}"):
            parts.find(f"theirs:{name}", ("theirs",))
    assert parts.find("theirs_part:inner", ("theirs_part",))() == 4  # a package may offer what is below it


@pytest.mark.parametrize(
    "name", ["os:", ":build", "theirs:a.b", "theirs:a b", "../theirs:build", "theirs:build:x", "1:a"]
)
def test_what_is_no_name_is_refused(parts: Registry, name: str) -> None:
    for ask in (parts.find, parts.check_name, parts.origin):
        with pytest.raises(CodeError, match="MODULE:NAME"):
            ask(name)


def test_the_current_folder_is_looked_into_last(
    parts: Registry, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path_factory.mktemp("here")
    write(folder, "theirs", "def build(): return 'found first'\n")
    write(here, "theirs", "def build(): return 'hidden'\n")
    write(here, "theirs_here", "def build(): return 'here'\n")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != ""])
    monkeypatch.chdir(here)
    assert parts.find("theirs_here:build", ("theirs_here",))() == "here"
    assert parts.find("theirs:build", ("theirs",))() == "found first"
    assert str(here) not in sys.path


def test_a_module_that_is_missing_or_fails_says_so(parts: Registry, folder: Path) -> None:
    write(folder, "theirs_bad", "raise ValueError('oh')\n")
    write(folder, "theirs_needs", "import theirs_nowhere\n")
    with pytest.raises(CodeError, match=r"needs the module theirs_gone, which is not here(.|\n)*PYTHONPATH"):
        parts.find("theirs_gone:build", ("theirs_gone",))
    with pytest.raises(CodeError, match="cannot be imported: ValueError: oh"):
        parts.find("theirs_bad:build", ("theirs_bad",))
    with pytest.raises(CodeError, match="theirs_needs, which cannot be imported: ModuleNotFoundError"):
        parts.find("theirs_needs:build", ("theirs_needs",))


def test_an_entry_point_is_loaded_only_when_it_is_named(parts: Registry, folder: Path) -> None:
    mark = write(folder, "theirs", "def build(): return 5\nnumber = 3\n")
    install(folder, "theirs", "own = theirs:build\nother = theirs:nothing\nno = theirs:number\nfirst = theirs:build")
    assert parts.names() == ["first", "own", "other", "no"]
    assert parts.origin("own") == "theirs:build of theirs 1.0"
    with pytest.raises(NetworkError, match="did you mean 'own'"):
        parts.find("owm")
    assert not mark.exists()
    assert parts.find("own")() == 5
    assert mark.exists()
    with pytest.raises(CodeError, match=r"theirs:nothing of theirs 1\.0: .*'other' of an installed package"):
        parts.find("other")
    with pytest.raises(NetworkError, match="no is no network"):
        parts.find("no")


def test_ours_is_not_replaced_in_silence(parts: Registry, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    mark = write(folder, "theirs", "def build(): return 5\n")
    install(folder, "theirs", "first = theirs:build")
    assert parts.find("first")() == 1
    assert "is not that of theirs:build of theirs 1.0" in caplog.text
    assert not mark.exists()


def test_two_packages_cannot_have_one_name(parts: Registry, folder: Path) -> None:
    install(folder, "theirs", "own = theirs:build")
    install(folder, "theirs2", "own = theirs2:build")
    with pytest.raises(CodeError, match="two installed packages offer a network called 'own'"):
        parts.find("own")


def test_who_registered_a_part_is_known(parts: Registry) -> None:
    parts.register("mine", check)
    assert parts.origin("mine") == f"registered by {__name__}"
    assert parts.origin("nobody's") is None
    with pytest.raises(NetworkError, match="registered already"):
        parts.register("mine", check)
    with pytest.raises(NetworkError, match="x is no network"):
        parts.register("x", 3)  # type: ignore[arg-type]


def test_modules_are_named_as_python_names_them() -> None:
    assert module_names("parts") == ("parts",)
    assert module_names(["a.b", "c_1"]) == ("a.b", "c_1")
    assert module_names(None) == ()
    for wrong in ("a:b", "", "../a", "a b", "a..b", f"a{os.sep}b"):
        with pytest.raises(CodeError, match="no name of a module"):
            module_names([wrong])
    with pytest.raises(CodeError):
        module_names([3])  # type: ignore[list-item]


def test_errors_are_of_the_kind(folder: Path) -> None:
    losses = Registry("loss", "cpfnet.tests", error=PlanError, check=check)
    with pytest.raises(PlanError, match="no loss is called 'x'"):
        losses.find("x")
