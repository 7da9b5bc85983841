"""What runs inside nnU-Net's own environment, which knows no cpfnet: prepare, time, train, predict.

    python nnunet_worker.py '{"do": "train", "configuration": "2d", …}'

The environment variables nnUNet_raw, nnUNet_preprocessed and nnUNet_results say where things lie, as for nnU-Net's own
commands. Nothing of nnU-Net is changed but the length of its schedule.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

DATASET = 1
PLANS = "nnUNetPlans"
WARMING, TIMED = 2, 3
"""Iterations of a trial: unheeded ones, timed ones."""


def prepare(configuration: str) -> dict[str, Any]:
    """Fingerprint, plan and preprocess, by nnU-Net's own rules and with the converted data's split."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess_dataset,
    )
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
    from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

    workers = len(os.sched_getaffinity(0))
    extract_fingerprints([DATASET], num_processes=workers, check_dataset_integrity=True)
    plan_experiments([DATASET])
    preprocess_dataset(DATASET, PLANS, [configuration], [workers])
    name = convert_id_to_dataset_name(DATASET)
    split = Path(nnUNet_raw) / name / "splits_final.json"
    shutil.copyfile(split, Path(nnUNet_preprocessed) / name / split.name)
    return {}


def _trainer(configuration: str, device: str, *, resume: bool = False) -> Any:
    from nnunetv2.run.run_training import get_trainer_from_args

    return get_trainer_from_args(
        str(DATASET), configuration, 0, plans_identifier=PLANS, continue_training=resume, device=torch.device(device)
    )


def pace(configuration: str, device: str) -> dict[str, Any]:
    """Seconds of one iteration, and of one that validates."""
    trainer = _trainer(configuration, device)
    trainer.on_train_start()

    def seconds(step: Callable[[Any], Any], batches: Iterator[Any]) -> float:
        for number in range(WARMING + TIMED):
            if number == WARMING:
                began = time.monotonic()
            step(next(batches))  # its loss is fetched, so a GPU has finished
        return (time.monotonic() - began) / TIMED

    learning = seconds(trainer.train_step, trainer.dataloader_train)
    with torch.no_grad():
        validating = seconds(trainer.validation_step, trainer.dataloader_val)
    trainer.on_train_end()
    return {"iteration": learning, "validation": validating}


def train(configuration: str, device: str, seed: int, epochs: int | None, iterations: int | None) -> dict[str, Any]:
    """Train to the end, going on where an earlier try stopped; ``epochs`` None is nnU-Net's own schedule."""
    from nnunetv2.paths import nnUNet_results
    from nnunetv2.run.run_training import maybe_load_checkpoint

    # As far as nnU-Net allows: the processes that augment draw as they like.
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (what nnU-Net draws from)
    torch.manual_seed(seed)
    began_before = any(Path(nnUNet_results).rglob("checkpoint_*.pth"))
    trainer = _trainer(configuration, device, resume=began_before)
    if epochs is not None:
        trainer.num_epochs, trainer.num_iterations_per_epoch = epochs, iterations
        trainer.num_val_iterations_per_epoch = 1  # it chooses nothing by them, and they would take of the budget
        trainer.save_every = 1
    maybe_load_checkpoint(trainer, began_before, False)
    trainer.run_training()
    log = trainer.logger.get_value
    spent = np.subtract(log("epoch_end_timestamps", None), log("epoch_start_timestamps", None))
    plan = trainer.configuration_manager
    return {
        "parameters": sum(weight.numel() for weight in trainer.network.parameters()),
        "patch": list(map(int, plan.patch_size)),
        "batch": int(plan.batch_size),
        "epochs": trainer.num_epochs,
        "iterations": trainer.num_iterations_per_epoch,
        "seconds": float(spent.sum()),
        "gpu_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("nnunetv2", "torch", "numpy")},
    }


def predict(configuration: str, device: str, source: str, out: str, step: float, axes: list[int]) -> dict[str, Any]:
    """Masks of a folder of images: Gaussian-weighted tiles, mirrored along ``axes`` of a patch."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.paths import nnUNet_results

    predictor = nnUNetPredictor(
        tile_step_size=step,
        use_mirroring=bool(axes),
        perform_everything_on_device=device == "cuda",
        device=torch.device(device),
    )
    folder = next(Path(nnUNet_results).glob(f"*/nnUNetTrainer__{PLANS}__{configuration}"))
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    predictor.allowed_mirroring_axes = tuple(axes)
    Path(out).mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential(source, out)
    return {}


def main() -> None:
    options = json.loads(sys.argv[1])
    result = Path(options.pop("result"))
    torch.set_num_threads(options.pop("threads"))
    work = {"prepare": prepare, "time": pace, "train": train, "predict": predict}[options.pop("do")]
    result.write_text(json.dumps(work(**options)), encoding="utf-8")


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
