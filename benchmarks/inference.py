"""CPFNet on one image of 512², in every runtime and precision: python -m benchmarks inference

The network alone, from array to array, with random weights: its speed does not depend on them. What each precision
decides is compared on trained Models by `cpfnet predict` itself (docs/how-to/export.md).

Each table is of one process. In "AVX2 only" oneDNN, which computes in PyTorch and in OpenVINO, is kept from AVX-512 and
AMX, and has no bf16 then; ONNX Runtime has no such switch, and is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Row, interleaved, save

SIZE = 512
ISAS = {"all units of this CPU": {}, "AVX2 only": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}


def quantise(graph: Path, to: Path, channels: int) -> None:
    """The graph with all layers in int8, calibrated on noise: only its speed is of interest, not its masks."""
    os.environ.setdefault("NNCF_CI", "1")  # else NNCF tells its makers of every use, unasked
    import nncf
    import openvino

    rng = np.random.default_rng(0)
    pieces = [rng.normal(size=(1, channels, SIZE, SIZE)).astype(np.float32) for _ in range(4)]
    calibration = nncf.Dataset(pieces, lambda piece: {"image": piece})
    network = openvino.Core().read_model(graph)
    quantised = nncf.quantize(network, calibration, preset=nncf.QuantizationPreset.MIXED)
    openvino.save_model(quantised, to, compress_to_fp16=False)


def ways(folder: Path, *, restricted: bool) -> dict[str, Callable[[], object]]:
    """Everything that is compared, the authors' way first.

    ``restricted``: without AVX-512, and therefore without bf16 and ONNX Runtime.
    """
    import torch

    from benchmarks.published import published
    from cpfnet import CPFNet
    from cpfnet.inference.backends.runtimes import computes_bf16, onnx_backend, openvino_backend
    from cpfnet.network.fuse import fuse

    bf16_units = computes_bf16() and not restricted
    torch.manual_seed(0)
    image = torch.randn(1, 3, SIZE, SIZE)
    last, array = image.to(memory_format=torch.channels_last), image.numpy()

    def eager(network: torch.nn.Module, x: torch.Tensor, *, bf16: bool = False) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return network(x).float().numpy()

        return run

    runs = {"PyTorch, as published (fp32)": eager(published(3, 2).eval(), image)}
    for title, network in (("", CPFNet(3, 2).eval()), (", fused", fuse(CPFNet(3, 2)))):
        network = network.to(memory_format=torch.channels_last)
        runs[f"PyTorch{title}, channels last, fp32"] = eager(network, last)
        if bf16_units:
            runs[f"PyTorch{title}, channels last, bf16"] = eager(network, last, bf16=True)
        graph = folder / f"network{title}.onnx"
        free = {0: torch.export.Dim("n", max=64), **{a: torch.export.Dim(f"d{a}", min=33, max=4096) for a in (2, 3)}}
        example = torch.zeros(2, 3, 64, 96)
        torch.onnx.export(
            network,
            (example,),
            graph,
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=(free,),
            external_data=False,
            verbose=False,
        )
        backends: dict[str, Any] = {"ONNX Runtime{}, fp32": onnx_backend(graph)} if not restricted else {}
        backends["OpenVINO{}, fp32"] = openvino_backend(graph)
        if bf16_units:
            backends["OpenVINO{}, bf16"] = openvino_backend(graph, "bf16")
        if title:
            quantise(graph, folder / "int8.xml", channels=3)
            rest = "bf16" if bf16_units else "f32"
            backends["OpenVINO{}, int8"] = openvino_backend(folder / "int8.xml", rest)
        runs |= {name.format(title): (lambda run=run: run(array)) for name, run in backends.items()}
    return runs


def measured(rounds: int, environment: dict[str, str]) -> list[Row]:
    """In a process of its own: oneDNN reads its switches once."""
    command = [sys.executable, "-m", "benchmarks.inference", "--child", "--rounds", str(rounds)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        with tempfile.TemporaryDirectory() as folder:
            runs = ways(Path(folder), restricted="ONEDNN_MAX_CPU_ISA" in os.environ)
            print(json.dumps([vars(row) for row in interleaved(runs, rounds=options.rounds)]))
        return
    tables = {f"{SIZE}×{SIZE}, {title}": measured(options.rounds, switches) for title, switches in ISAS.items()}
    save("inference", tables)


if __name__ == "__main__":
    main()
