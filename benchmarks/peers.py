"""CPFNet beside what others would take: python -m benchmarks peers

The network alone on one image of 512² beside MONAI's FlexibleUNet with a ResNet-34; and a CT of 512² slices, from shell
to file, beside nnU-Net in two dimensions, in the environment that benchmarks/accuracy/README.md says how to make.
nnU-Net plans for the volumes, trains for one epoch of one step, and predicts with the same tile step and mirroring;
what either finds is worth nothing. Each network is its project's own: their sizes stand beside them. nnU-Net reads and
writes NIfTI, `cpfnet` that and DICOM.

segmentation-models-pytorch 0.6.0 is not among them: its encoders derive from torchvision's classes, and
torchvision cannot be imported beside a CPU build of PyTorch (`operator torchvision::nms does not exist`: its
library is linked to CUDA's).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Row, interleaved, save
from benchmarks.predict import export, make_model, make_series

SIZE = 512
THIN = 12
"""Slices of each of nnU-Net's training volumes: what it plans and how fast it predicts does not depend on them."""


def networks(folder: Path, rounds: int) -> list[Row]:
    """Array to array."""
    import torch
    from monai.networks.nets import FlexibleUNet
    from torch.utils.flop_counter import FlopCounterMode

    from cpfnet import CPFNet
    from cpfnet.inference.backends.runtimes import computes_bf16, openvino_backend
    from cpfnet.network import zoo
    from cpfnet.network.fuse import fuse

    torch.manual_seed(0)
    image = torch.randn(1, 3, SIZE, SIZE)
    array = image.numpy()

    def eager(network: torch.nn.Module) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return network(image).numpy()

        return run

    runs: dict[str, Callable[[], object]] = {}
    own = CPFNet(3, 2).eval()
    for name, network in ("MONAI FlexibleUNet-ResNet34", FlexibleUNet(3, 2, "resnet34").eval()), ("CPFNet", own):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(image)
        size = sum(weight.numel() for weight in network.parameters()) / 1e6
        runs[f"{name} ({size:.1f} M, {counter.get_total_flops() / 1e9:.0f} GFLOP), PyTorch fp32"] = eager(network)
    # MONAI's own encoder cannot be exported; cpfnet's resnet34-unet is its U-Net with another.
    unet = zoo.build("resnet34-unet", 3, 2, spatial_dims=2).eval()
    for name, network in ("cpfnet's resnet34-unet", unet), ("CPFNet", fuse(own)):
        graph = folder / f"{name}.onnx"
        names = {"input_names": ["image"], "external_data": False, "verbose": False}
        torch.onnx.export(network, (image,), graph, dynamo=True, **names)
        for precision in ("f32", "bf16") if computes_bf16() else ("f32",):
            backend = openvino_backend(graph, precision)
            runs[f"{name}, OpenVINO {precision.replace('f32', 'fp32')}"] = lambda run=backend: run(array)
    return interleaved(runs, rounds=rounds)


def blob(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A body with one bright organ, HU, and its mask."""
    rows, columns = np.ogrid[:SIZE, :SIZE]
    body = ((rows - 256) / 180) ** 2 + ((columns - 256) / 230) ** 2 < 1
    organ = ((rows - 220) / 60) ** 2 + ((columns - 200) / 70) ** 2 < 1
    volume = np.where(body, 40, -1000) + 60 * organ + rng.integers(-20, 21, (count, SIZE, SIZE))
    return volume.astype(np.int16), np.broadcast_to(organ, volume.shape).astype(np.uint8)


class Peer:
    """nnU-Net with a 2-D network that it trained for one epoch of one step."""

    def __init__(self, folder: Path) -> None:
        from tests.synthetic import write_nifti

        self.folder = folder
        raw = folder / "raw" / "Dataset001_organ"
        rng = np.random.default_rng(0)
        names = [f"case{number}" for number in range(3)]
        for name in names:
            image, mask = blob(rng, THIN)
            write_nifti(raw / "imagesTr" / f"{name}_0000.nii.gz", image)
            write_nifti(raw / "labelsTr" / f"{name}.nii.gz", mask)
        description = {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "organ": 1},
            "numTraining": len(names),
            "file_ending": ".nii.gz",
        }
        (raw / "dataset.json").write_text(json.dumps(description))
        (raw / "splits_final.json").write_text(json.dumps([{"train": names[1:], "val": names[:1]}]))
        self.call("prepare")
        self.trained = self.call("train", device="cpu", seed=0, epochs=1, iterations=1)

    def call(self, do: str, **options: Any) -> dict[str, Any]:
        from benchmarks.accuracy.nnunet import HERE, PYTHON

        result = self.folder / "result.json"
        asked = {"do": do, "configuration": "2d", "result": str(result), "threads": len(os.sched_getaffinity(0))}
        places = {f"nnUNet_{name}": str(self.folder / name) for name in ("raw", "preprocessed", "results")}
        command = [str(PYTHON), str(HERE / "nnunet_worker.py"), json.dumps(asked | options)]
        done = subprocess.run(command, env=os.environ | places, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"nnU-Net: {do}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return json.loads(result.read_text())

    def predict(self, source: Path, out: Path, *, mirrored: bool) -> None:
        axes = [0, 1] if mirrored else []
        self.call("predict", device="cpu", source=str(source), out=str(out), step=0.5, axes=axes)

    def __str__(self) -> str:
        patch = "×".join(map(str, self.trained["patch"]))
        return f"nnU-Net 2-D ({self.trained['parameters'] / 1e6:.1f} M, patch {patch})"


def volumes(folder: Path, peer: Peer, *, count: int, mirrored: bool, rounds: int) -> list[Row]:
    """Shell to file."""
    from tests.synthetic import write_nifti

    source, series, out = folder / f"nifti-{count}", folder / f"series-{count}", folder / "out"
    if not series.exists():
        write_nifti(source / "ct_0000.nii.gz", blob(np.random.default_rng(1), count)[0])
        make_series(series, count)
    model = folder / "model"
    if not model.exists():
        export(make_model(model, volumes=True))

    def fresh(run: Callable[[], object]) -> Callable[[], None]:
        def whole() -> None:
            shutil.rmtree(out, ignore_errors=True)
            run()
            if not [path for path in out.iterdir() if path.suffix in (".gz", ".dcm")]:
                raise SystemExit(f"nothing was written to {out}")

        return whole

    def ours(read: Path, backend: str) -> Callable[[], None]:
        cpfnet = Path(sys.executable).with_name("cpfnet")
        command: Sequence[Any] = [cpfnet, "predict", model, read, "-o", out, "--backend", backend, "--force"]
        return fresh(lambda: subprocess.run([*command, *["--tta"] * mirrored], check=True, capture_output=True))

    runs = {f"{peer}, NIfTI to NIfTI": fresh(lambda: peer.predict(source, out, mirrored=mirrored))}
    for backend in ("openvino", "openvino-bf16", "openvino-int8"):
        runs[f"cpfnet --backend {backend}, NIfTI to NIfTI"] = ours(source, backend)
    for backend in ("openvino-bf16", "openvino-int8"):
        runs[f"cpfnet --backend {backend}, DICOM to SEG"] = ours(series, backend)
    return interleaved(runs, rounds=rounds, warm=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="slices")
    parser.add_argument("--mirrored", type=int, default=20, help="slices that are predicted mirrored, too")
    parser.add_argument("--rounds", type=int, default=2, help="of the volumes; the network alone takes 15")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = {f"the network alone, 1 × 3 × {SIZE}²": networks(folder, 15)}
        peer = Peer(folder / "nnunet")
        for count, mirrored in ((options.count, False), (options.mirrored, True)):
            title = f"a CT of {count} slices of {SIZE}²" + ", mirrored along both axes" * mirrored
            tables[title] = volumes(folder, peer, count=count, mirrored=mirrored, rounds=options.rounds)
    save("peers", tables, peers=peer.trained["versions"])


if __name__ == "__main__":
    main()
