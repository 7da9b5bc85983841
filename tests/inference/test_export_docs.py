"""The programs that docs/how-to/export.md shows give the masks of `predict`, or say what they cannot do."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image as Pillow

import cpfnet
from cpfnet import preprocessing
from cpfnet.image import Image
from cpfnet.inference.backends import exported_files
from cpfnet.inference.torch_backend import onnx_graph
from cpfnet.model import Model
from cpfnet.planning import Labels, Local, MinMax, Percentiles, Plan, Scale, Window, ZScore
from tests.inference.oracle import make_model
from tests.synthetic import blobs, write_nifti
from tests.test_docs import ROOT, blocks

WITH_CPFNET, PLAIN = blocks(ROOT / "docs/how-to/export.md", "python")
REGIONS = Labels(classes=[{"name": "whole", "values": [1, 2]}, {"name": "core", "values": [2]}], exclusive=False)


def run(text: str, folder: Path, *arguments: object) -> None:
    """As `python FILE ARGUMENTS`."""
    program = folder / "program.py"
    program.write_text(text, encoding="utf-8")
    before = sys.argv
    sys.argv = [str(program), *map(str, arguments)]
    try:
        runpy.run_path(str(program), run_name="__main__")
    finally:
        sys.argv = before


def photograph(path: Path, size: tuple[int, int], mode: str = "RGB", **options: Any) -> Path:
    rng = np.random.default_rng(3)
    planes = [np.uint8(200 * blobs(rng, size, 2)[0]) for _ in range(len(mode))]
    for plane in planes:
        plane[-30:, :40] = 20
        plane[-20:-8, 10:22] = 200  # a speck of 144 pixels
    Pillow.fromarray(planes[0] if mode == "L" else np.stack(planes, axis=-1), mode).save(path, **options)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Model, Path], Path]:
    """Write a Model's graph; of the same channels and outputs it is made once, and only told what the Model is."""
    folder, graphs = tmp_path_factory.mktemp("graphs"), {}

    def exported(found: Model, path: Path) -> Path:
        key = (found.plan.in_channels, found.plan.labels.outputs, found.plan.spatial.dims)
        if key not in graphs:
            graphs[key] = folder / f"{len(graphs)}.onnx"
            onnx_graph.write_onnx(found, graphs[key])
        graph = onnx.load(graphs[key])
        onnx.helper.set_model_props(graph, onnx_graph.described(found))
        onnx.save(graph, path)
        return path

    return exported


def model(channels: int = 3, **options: Any) -> Model:
    """The oracle, unsure enough for a temperature to matter."""
    names = ("red", "green", "blue") if channels == 3 else ("grey",)

    def named(plan: Plan) -> Plan:
        own = [c.model_copy(update={"name": name}) for c, name in zip(plan.channels, names, strict=True)]
        return plan.model_copy(update={"channels": tuple(own)})

    found = make_model(**{"source": "images", "channels": channels, "change": named, "values": (1,)} | options)
    found.state = {"sharpness": torch.tensor([9.0])}
    return found


CASES = {
    "resized to a size": {"size": (48, 64), "values": (255,)},
    "the longer side resized": {"longest": 80, "values": (2, 7)},
    "on its own grid": {"values": (1, 2)},
    "smaller than the patch": {"size": (40, 44), "patch": (64, 96), "values": (255,)},
    "grey in a window": {"channels": 1, "intensity": Window(low=20, high=170), "size": (64, 48), "values": (3,)},
    "grey by its extremes": {"channels": 1, "intensity": MinMax(), "longest": 200, "values": (1, 2)},
    "as if pretrained": {"intensity": Scale(full=255, mean=0.45, std=0.225), "longest": 96, "values": (1,)},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_the_plain_program_writes_the_mask_of_predict(exported, tmp_path: Path, options: dict[str, Any]) -> None:
    """What was fitted included: taking any of it away changes these masks."""
    path = photograph(tmp_path / "a.png", (97, 131), "L" if options.get("channels") == 1 else "RGB")
    share = preprocessing.trace_of(
        Image(np.zeros((options.get("channels", 3), 97, 131))), model(**options).plan
    ).pixel_share
    neutral = {"temperature": 1.0, "threshold": 0.5, "min_component_size": 0.0}
    fitted = {"temperature": 1.7, "threshold": 0.37, "min_component_size": 300 * share}
    expected = cpfnet.predict(
        model(fitted=fitted, **options), path, cpfnet.PredictorOptions(backend="torch", device="cpu", force=True)
    ).array
    run(PLAIN, tmp_path, exported(model(fitted=fitted, **options), tmp_path / "a.onnx"), path, tmp_path / "mask.png")
    written = np.asarray(Pillow.open(tmp_path / "mask.png"))
    assert len(np.unique(expected)) > 1
    assert (written != expected).sum() <= 3  # of 12,707
    for name, value in neutral.items():
        if len(options["values"]) == 1 or name == "min_component_size":
            other = model(fitted=fitted | {name: value}, **options)
            without = cpfnet.predict(
                other, path, cpfnet.PredictorOptions(backend="torch", device="cpu", force=True)
            ).array
            assert (without != expected).sum() > 6, name


REFUSED = {
    "volumes": ({"source": "volumes"}, {}, "the model is for volumes"),
    "regions": ({"labels": REGIONS}, {}, "regions that overlap"),
    "colours": ({"values": ("#ff0000", "#00ff00")}, {}, r"label values are not 0 … 255: \[0, '#ff0000'"),
    "large values": ({"values": (300,)}, {}, "label values are not 0 … 255"),
    "local": ({"intensity": Local()}, {}, "an intensity is of another kind"),
    "percentiles": ({"intensity": Percentiles()}, {}, "an intensity is of another kind"),
    "zscore": ({"intensity": ZScore()}, {}, "an intensity is of another kind"),
    "a tile": ({"inference": {"tile": (64, 64)}}, {}, r"larger than a tile of \[64, 64\]"),
    "grey": ({}, {"mode": "L"}, "mode is L, and the model takes RGB"),
    "opacity": ({}, {"mode": "RGBA"}, "mode is RGBA, and the model takes RGB"),
    "colour": ({"channels": 1}, {}, "mode is RGB, and the model takes L"),
    "turned": ({}, {"exif": (lambda e: (e.__setitem__(274, 6), e)[1])(Pillow.Exif())}, "stored turned"),
}


@pytest.mark.parametrize(("options", "of_file", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_the_plain_program_refuses_what_it_cannot_do(
    exported, tmp_path: Path, options: dict[str, Any], of_file: dict[str, Any], words: str
) -> None:
    path = photograph(tmp_path / "a.png", (97, 131), **of_file)
    with pytest.raises(SystemExit, match=words):
        run(PLAIN, tmp_path, exported(model(**options), tmp_path / "a.onnx"), path, tmp_path / "mask.png")
    assert not (tmp_path / "mask.png").exists()


def test_with_cpfnet_a_volume_of_regions_is_segmented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = make_model(
        mode="3d", labels=REGIONS, spacing=(1.0, 1.0, 1.0), slices="axial", fitted={"threshold": (0.2, 0.3)}
    )
    found.state = {"sharpness": torch.tensor([9.0])}
    found.save(tmp_path / "model")
    exported_files.prepared(found)
    array = 200 * blobs(np.random.default_rng(0), (40, 44, 48), 2)[0]
    scan = write_nifti(tmp_path / "scan.nii.gz", array, spacing=(0.8, 0.9, 1.5))
    monkeypatch.chdir(tmp_path)
    run(WITH_CPFNET, tmp_path)
    written = cpfnet.read(tmp_path / "mask.nii.gz").array[0]
    expected = cpfnet.predict(found, scan, cpfnet.PredictorOptions(backend="torch", device="cpu")).array
    assert len(np.unique(expected)) > 1
    assert np.mean(written != expected) < 1e-3
