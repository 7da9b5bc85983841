"""What reaches a terminal, a pipe and a file: on a real pseudo-terminal, and in encodings that lack our signs."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.synthetic import make_images_dataset, write_raster

EVIL = "x\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\u2028\udc80[bold]y"
"""Would set a terminal's title, clear it, colour it, turn the writing direction, and be markup."""
RAW = re.compile(r"\x1b\]0;owned|\x1b\[2J|\x9b|\u202e|\u2028|\x07")


def on_terminal(*arguments: str, **settings: str) -> str:
    """Both streams of a Python program that runs on a terminal of its own."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "300", "PYTHONIOENCODING": "utf-8", **settings}
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=follower, stdout=follower, stderr=follower, env=environment
    ) as child:
        os.close(follower)
        chunks = []
        while True:
            try:
                chunks.append(os.read(leader, 65536))
            except OSError:  # the end of a terminal
                break
            if not chunks[-1]:
                break
        os.close(leader)
        child.wait(60)
    return b"".join(chunks).decode("utf-8", "backslashreplace")


def test_no_name_commands_a_terminal() -> None:
    program = f"""
import logging, warnings
from cpfnet.cli import console
from cpfnet.errors import CpfnetError
from cpfnet.progress import Bar
console.set_up_streams()
evil = {EVIL!r}
with console.messages():
    logging.getLogger("cpfnet.some.module").info("MESSAGE " + evil)
console.complain("COMPLAIN " + evil)
console.complain(str(CpfnetError("ERROR", where=evil + "\\nerror: forged")))
console.line("LINE " + evil, "green")
console.put("PUT " + evil)
console.table("TITLE " + evil, ["COLUMN " + evil, ""], [["CELL " + evil, "b"]], styles=["red"])
warnings.warn("WARNING " + evil)
logging.getLogger("other").warning("LOG " + evil)
with Bar(show=True) as bar:
    task = bar.add_task("TASK " + evil, total=2)
    bar.refresh()
    bar.update(task, description="UPDATE " + evil, completed=1)
    bar.refresh()
"""
    printed = on_terminal("-c", program)
    assert not RAW.search(printed)
    for word in ["MESSAGE", "COMPLAIN", "LINE", "PUT", "TITLE", "COLUMN", "CELL", "WARNING", "LOG", "TASK", "UPDATE"]:
        assert re.search(rf"{word} x\\x1b\]0;owned\\x07\\x1b\[2J\\x9b31m\\u202egnp\\u2028\\x80", printed), word
        assert printed.count("[bold]y") >= 11  # names are no markup
    assert "\nerror: forged" not in printed.replace("\r", "")
    assert "\x1b[31m" in printed  # our own colours are there


LOGGED = """
import logging, sys
from cpfnet.cli import console
from cpfnet.cli.app import app, main

@app.command()
def tell() -> None:
    logger = logging.getLogger("cpfnet.some.module")
    logger.debug("a detail of %s", "[bold]n")
    logger.info("a message")
    logger.warning("a \x1b[2Jdoubt\\nin two lines")
    logger.error("a fault")
    logging.getLogger("other").info("not ours, a message")
    logging.getLogger("other").warning("not ours, a doubt")
    print("bars" if console.shows_progress() else "no bars")

main()
"""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["tell"], {"a message", "bars"}),
        (["tell", "--quiet"], {"no bars"}),
        (["--quiet", "tell"], {"no bars"}),
        (["--quiet", "tell", "--verbose"], {"a message", "bars", "debug: a detail of [bold]n"}),
    ],
)
def test_what_the_package_logs_is_printed_as_wished(options: list[str], told: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOGGED, *options], capture_output=True, text=True, check=True)
    always = [r"warning: a \x1b[2Jdoubt", "in two lines", "error: a fault", "not ours, a doubt"]
    lines = done.stderr.splitlines()
    assert [line for line in lines if line in always] == always
    assert {*lines, *done.stdout.split("\n")[:-1]} - {*always} == told


def test_messages_have_colours_on_a_terminal_and_leave_the_logger_as_it_was() -> None:
    program = """
import logging
from cpfnet.cli.console import messages
logger = logging.getLogger("cpfnet")
before = logger.level, logger.propagate, [*logger.handlers]
with messages():
    logging.getLogger("cpfnet.x").warning("WARNING")
assert (logger.level, logger.propagate, logger.handlers) == before
"""
    printed = on_terminal("-c", program)
    assert re.fullmatch(r"\x1b\[33mwarning: \x1b\[0mWARNING\r\n", printed), printed


def test_both_more_and_less_is_refused() -> None:
    run = [sys.executable, "-m", "cpfnet", "weights", "list", "--quiet", "--verbose"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 2
    assert "exclude each other" in done.stderr


def test_a_command_names_evil_files_in_plain_text(tmp_path: Path) -> None:
    make_images_dataset(tmp_path / "data", cases=3, size=(32, 32))
    evil = "c\x1b]0;owned\x07\x1b[2J\u202ed"
    write_raster(tmp_path / "data/images" / f"{evil}.png", np.zeros((32, 32), np.uint8))
    (tmp_path / "data/images" / f"{evil}2.png").write_bytes(b"no picture")
    main = "from cpfnet.cli.app import main; main()"
    printed = on_terminal("-c", main, "check", str(tmp_path / "data"))
    assert not RAW.search(printed)
    assert r"c\x1b]0;owned\x07\x1b[2J\u202ed" in printed
    printed = on_terminal("-c", main, "check", str(tmp_path / evil))
    assert "error:" in printed
    assert not RAW.search(printed)
    printed = on_terminal("-c", main, "check", "data", evil, evil)  # as a pattern of the shell would pass them
    assert "unexpected" in printed
    assert not RAW.search(printed)


def test_what_programs_take_is_not_changed(tmp_path: Path) -> None:
    program = f"from cpfnet.cli.console import put; put({str(tmp_path / 'a b')!r} + '\\x1b')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode() == str(tmp_path / "a b") + "\x1b\n"


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with names and classes beyond ASCII, and predictions: the labels themselves."""
    root = tmp_path_factory.mktemp("scored")
    make_images_dataset(root / "data", cases=3, size=(32, 32))
    for folder in ("images", "masks"):
        for number, file in enumerate(sorted((root / "data" / folder).iterdir())):
            file.rename(file.with_name(f"größe肝{number}{file.suffix}"))
    (root / "data/dataset.yaml").write_text(
        "name: größe肝\nimage: 'images/{case}.png'\nlabel: 'masks/{case}.png'\nlabels: {肝—α: 255}\n", encoding="utf-8"
    )
    return root


ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


RUN = """
import json, sys
from cpfnet.cli.app import main
for command in json.loads(sys.argv[1]):
    sys.argv[1:] = command
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    print("code", code, flush=True)
"""
"""Commands one after the other: libraries load once."""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_encoding_stops_a_command(scored: Path, encoding: str) -> None:
    data, scores = str(scored / "data/dataset.yaml"), f"scores-{encoding}"
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONIOENCODING", "PYTHONUTF8", "LC_ALL", "LANG")}
    commands = [["--help"], ["predict", "--help"], ["doctor"], ["doctor", "--json"]]
    if encoding != "C":  # where names on disk are bytes, too
        commands += [["check", data, "--json"], ["check", data], ["plan", data, "-o", f"{encoding}.yaml"]]
        commands += [["evaluate", data, "data/masks", "-o", scores], ["compare", scores, f"größe={scores}"]]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        capture_output=True,
        cwd=scored,
        env={**inherited, "COLUMNS": "100", **ENCODINGS[encoding]},
        timeout=300,
    )
    taken = "ascii" if encoding == "C" else encoding
    errors, shown = done.stderr.decode(taken), done.stdout.decode(taken)  # every byte is one of this encoding
    assert done.returncode == 0, errors
    for word in ("Traceback", "Encode", "defect", "Logging error"):
        assert word not in errors
    *parts, rest = re.split(r"code (\d+)\n", shown)
    assert rest == ""
    results = dict(zip(map(" ".join, commands), zip(parts[::2], map(int, parts[1::2]), strict=True), strict=True))
    assert [code for _, code in results.values()] == [0, 0, 0, 0, 0, 0, 0, 0, 1][: len(commands)], errors
    assert json.loads(results["doctor --json"][0])[0]["name"] == "Python"
    if encoding != "C":
        assert json.loads(results[f"check {data} --json"][0])[0]["kind"] == "few-cases"
        table = results[f"evaluate {data} data/masks -o {scores}"][0]
        assert "1.000" in table
        assert r"\u809d" in table  # the class is told from others all the same
        assert r"gr\xf6\xdfe" in errors if encoding == "ascii" else "größe" in errors
