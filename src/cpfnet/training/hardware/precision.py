"""In which precision a run computes, and Lightning Fabric for it."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment

from cpfnet.errors import PlanError
from cpfnet.planning import TrainingPlan
from cpfnet.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup


def choose_precision(training: TrainingPlan, device: torch.device) -> str:
    """``"fp32"``, ``"bf16"`` or ``"fp16"``; `auto` takes bf16 where the hardware computes in it, else fp16 on CUDA.

    Raises:
        PlanError: fp16 on a CPU.
    """
    if training.precision == "fp16" and device.type == "cpu":
        raise PlanError("fp16 needs a CUDA device", where="training.precision", fix="set it to auto, bf16 or fp32")
    if training.precision != "auto":
        return training.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def fabric_for(device: torch.device, precision: str, group: ProcessGroup = SINGLE_PROCESS) -> Fabric:
    """Lightning Fabric on one device; of a group that has met, with the others."""
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # the run logs it itself
    numbers: Any = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]
    if group.size == 1:
        return Fabric(
            accelerator=device.type, devices=1 if device.type == "cpu" else [device.index or 0], precision=numbers
        )
    fabric = Fabric(
        accelerator=device.type,
        devices=group.local_size,
        num_nodes=group.size // group.local_size,
        strategy="ddp",
        plugins=TorchElasticEnvironment(),
        precision=numbers,
    )
    fabric.launch()
    return fabric
