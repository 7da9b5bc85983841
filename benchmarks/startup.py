"""From shell to file, one image: python -m benchmarks startup

`cpfnet predict` on a PNG of 512² with CPFNet (random weights) through its exported graph, in a new environment with
`pip install .[runtime]`, which has no PyTorch. The graph was made, the backend chosen, and the disk warmed before.
Beside it programs that stop earlier, so that the differences are the parts.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measure import interleaved, save
from benchmarks.predict import make_images, make_model

ROOT = Path(__file__).parents[1]
LOAD = "import cpfnet.cli.app, cpfnet.api, cpfnet.inference.batch.run, cpfnet.model, openvino"
COMPILE = f"""{LOAD}
from cpfnet.inference.predictor import Predictor
Predictor([cpfnet.model.Model.load({{!r}})])"""
IMPORTS = 8


def environment(folder: Path) -> Path:
    """The interpreter of a new environment with ``cpfnet[runtime]`` at the tested versions."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--constraint", ROOT / "constraints.txt", f"{ROOT}[runtime]"], check=True)
    return python


def imports(command: Sequence[Any]) -> list[tuple[str, float]]:
    """The packages whose import takes longest, with all that they import and nobody has before, and their seconds."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.findall(r"import time:\s+\d+ \|\s+(\d+) \| (\s*)(\w+)$", done.stderr, re.MULTILINE)
    whole = sorted(((name, int(microseconds) / 1e6) for microseconds, _, name in found), key=lambda one: -one[1])
    return [one for one in whole if one[0] != "cpfnet"][:IMPORTS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = environment(folder / "environment")
        cpfnet = python.with_name("cpfnet")
        model, image = make_model(folder / "model", volumes=False), make_images(folder / "images", 1) / "0000.png"
        subprocess.run([Path(sys.executable).with_name("cpfnet"), "export", model, "--to", "onnx"], check=True)
        out = folder / "out"
        predict = [cpfnet, "predict", model, image, "-o", out, "--force"]

        def shell(command: Sequence[Any]) -> Callable[[], None]:
            def run() -> None:
                shutil.rmtree(out, ignore_errors=True)
                subprocess.run(command, check=True, capture_output=True, cwd=folder)

            return run

        runs = {
            "image": shell(predict),
            "network": shell([python, "-c", COMPILE.format(str(model))]),
            "libraries": shell([python, "-c", LOAD]),
            "Python": shell([python, "-c", "pass"]),
        }
        until = {row.name: row.seconds for row in interleaved(runs, rounds=options.rounds)}
        shutil.rmtree(out, ignore_errors=True)
        longest = imports([python, "-X", "importtime", *predict])
    parts = {name: until[name] - until.get(before, 0) for name, before in pairwise((*runs, ""))}
    parts = {name: parts[name] for name in reversed(parts)}
    whole = sum(parts.values())
    print(f"{whole:.2f} s: {', '.join(f'{name} {seconds:.2f}' for name, seconds in parts.items())}")
    print(f"of the libraries: {', '.join(f'{name} {seconds:.2f}' for name, seconds in longest)}")
    save("startup", {}, rounds=options.rounds, parts=parts, imports=dict(longest))


if __name__ == "__main__":
    main()
