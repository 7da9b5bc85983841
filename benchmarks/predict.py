"""From shell to files, all included: python -m benchmarks predict

200 photographs of 512² from PNG to PNG, and a CT of 200 slices of 512² from DICOM to SEG: the loop that a careful user
of the network would write (read, PyTorch in float32 as published, argmax, write) beside `cpfnet predict` with each
backend. CPFNet with random weights: the time does not depend on them, and what the precisions decide on trained Models
is another question (docs/how-to/export.md): int8 must pass a check there, and is given only its graph here. Exports
are made before.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inference import quantise
from benchmarks.measure import Row, interleaved, save

BACKENDS = ("torch", "onnx", "openvino", "openvino-bf16", "openvino-int8")


def plain_images(weights: Path, source: Path, out: Path) -> None:
    """The plain loop over PNG files."""
    import torch
    from PIL import Image
    from safetensors.torch import load_file

    from benchmarks.published import published

    network = published(3, 2).eval()
    network.load_state_dict(load_file(weights))
    out.mkdir()
    with torch.inference_mode():
        for file in sorted(source.glob("*.png")):
            image = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)[None].float() / 255
            mask = network(image).argmax(1)[0].to(torch.uint8).numpy()
            Image.fromarray(mask * 255).save(out / file.name)


def plain_series(weights: Path, source: Path, out: Path) -> None:
    """The plain loop over the slices of a series."""
    import highdicom
    import pydicom
    import torch
    from pydicom.sr.codedict import codes
    from safetensors.torch import load_file

    from benchmarks.published import published

    network = published(1, 2).eval()
    network.load_state_dict(load_file(weights))
    slices = sorted((pydicom.dcmread(file) for file in source.iterdir()), key=lambda s: s.ImagePositionPatient[2])
    masks = []
    with torch.inference_mode():
        for one in slices:
            values = one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
            image = torch.from_numpy(((values.clip(-150, 250) + 150) / 400).astype(np.float32))[None, None]
            masks.append(network(image).argmax(1)[0].to(torch.uint8).numpy())
    algorithm = highdicom.AlgorithmIdentificationSequence("plain", codes.DCM.ArtificialIntelligence, "1")
    segment = highdicom.seg.SegmentDescription(
        1, "organ", codes.SCT.Tissue, codes.SCT.Organ, highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC, algorithm
    )
    uid = highdicom.UID()
    out.mkdir()
    highdicom.seg.Segmentation(
        slices, np.stack(masks), "BINARY", [segment], uid, 1, uid, 1, "cpfnet", "plain", "1", "0"
    ).save_as(out / "mask.dcm")


def make_model(folder: Path, *, volumes: bool, structures: int = 1, patch: int = 512) -> Path:
    """CPFNet with random weights, as `cpfnet train` would save it; images smaller than ``patch`` are padded."""
    import torch

    from cpfnet import CPFNet
    from cpfnet.model import Fitted, FittedChannel, Model
    from cpfnet.planning import Plan

    names = ["CT"] if volumes else ["red", "green", "blue"]
    values = [255] if structures == 1 else range(1, structures + 1)
    intensity = {"kind": "window", "low": -150, "high": 250} if volumes else {"kind": "scale", "full": 255}
    plan = Plan.model_validate(
        {
            "name": "benchmark",
            "modality": "ct" if volumes else "other",
            "source": "volumes" if volumes else "images",
            "channels": [{"name": name, "intensity": intensity} for name in names],
            "labels": {"classes": [{"name": f"organ {value}", "values": [value]} for value in values]},
            "spatial": {"patch": [patch, patch]},
            "network": {"name": "cpfnet", "weights": "none"},
            "training": {"samples": 1},
            "inference": {"batch": 1, "mirror": ["height", "width"]},
        }
    )
    torch.manual_seed(0)
    network = CPFNet(len(names), 1 + structures).eval()
    channels = tuple(
        FittedChannel(name=name, low=-1000 if volumes else 0, high=1000 if volumes else 255) for name in names
    )
    Model(plan, Fitted(plan_hash=plan.hash, cases=1, epochs=1, channels=channels), network.state_dict()).save(folder)
    return folder


def export(folder: Path) -> None:
    """The Model's graphs, in int8 too: with all layers, and for its speed alone, as if it had passed its check."""
    from cpfnet.inference.backends import exported_files
    from cpfnet.inference.backends.exported_files import Judged
    from cpfnet.inference.torch_backend.onnx_graph import prepared
    from cpfnet.model import Model

    model = Model.load(folder)
    graph = prepared(model)
    quantise(graph, graph.with_name(exported_files.INT8), channels=len(model.plan.channels))
    passed = Judged(backend="openvino-int8", seconds=0, agreement=1, dice=1, passed=True)
    found = exported_files.record(model)
    assert found is not None  # prepared() wrote it
    exported_files.keep(model, found.model_copy(update={"int8": passed}))


def make_images(folder: Path, count: int, side: int = 512) -> Path:
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):  # smooth with a little noise: PNG compresses them as it does photographs
        coarse = Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(coarse, np.int16) + rng.integers(-4, 5, (side, side, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04d}.png")
    return folder


def make_series(folder: Path, count: int) -> Path:
    from tests.synthetic import write_series

    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:512, :512]
    body = ((rows - 256) / 180) ** 2 + ((columns - 256) / 230) ** 2 < 1
    volume = np.where(body, 1064, 24) + rng.integers(-20, 21, (count, 512, 512))
    write_series(folder, volume.astype(np.int16))
    return folder


def measured(what: str, folder: Path, *, count: int, rounds: int) -> list[Row]:
    volumes = what == "series"
    model = make_model(folder / f"{what}-model", volumes=volumes)
    source = (make_series if volumes else make_images)(folder / what, count)
    out = folder / "out"

    def shell(command: Sequence[Any]) -> Callable[[], None]:
        def run() -> None:
            shutil.rmtree(out, ignore_errors=True)
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
            if done.returncode or not list(out.iterdir()):
                raise SystemExit(f"{command}:\n{done.stdout}{done.stderr}")

        return run

    cpfnet = Path(sys.executable).with_name("cpfnet")
    export(model)
    plain = [sys.executable, "-m", "benchmarks.predict", "--plain", what, model / "weights.safetensors", source, out]
    runs = {"plain loop": shell(plain)}
    for name in BACKENDS:
        runs[f"cpfnet predict --backend {name}"] = shell(
            [cpfnet, "predict", model, source, "-o", out, "--backend", name, "--force"]
        )
    return interleaved(runs, rounds=rounds, warm=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", nargs=4, metavar=("WHAT", "WEIGHTS", "SOURCE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        what, *paths = options.plain
        (plain_series if what == "series" else plain_images)(*map(Path, paths))
        return
    with tempfile.TemporaryDirectory() as folder:
        tables = {
            title: measured(what, Path(folder), count=options.count, rounds=options.rounds)
            for what, title in (
                ("images", f"{options.count} images of 512², PNG to PNG"),
                ("series", f"a CT of {options.count} slices of 512², DICOM to SEG"),
            )
        }
    save("predict", tables)


if __name__ == "__main__":
    main()
