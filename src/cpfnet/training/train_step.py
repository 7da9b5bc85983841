"""What is learned: the network, its optimiser and the moving average of its weights, and one step of all three."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from cpfnet.errors import TrainingError
from cpfnet.inference.backends.out_of_memory import cause, exhausted, release
from cpfnet.inference.sliding_window import predict_array
from cpfnet.inference.torch_backend.network import TorchBackend
from cpfnet.network import zoo
from cpfnet.network.encoder import find_encoder
from cpfnet.network.layout import memory_layout
from cpfnet.planning import Plan
from cpfnet.training import loss, schedule
from cpfnet.training.distributed.sync_layers import shared
from cpfnet.training.hardware.cuda_graphs import CudaGraphRunner
from cpfnet.training.hardware.flat_conv3d import FlatMaps
from cpfnet.training.samples.patches import Patches, Sample, Schedule

logger = logging.getLogger(__name__)

_DROPOUT = 2  # stream of random numbers, beside those of `loading`


SKIPPED = 20
"""Steps of fp16 in a row that end a run: each halves the scale of the losses, which begins at 65,536."""


class OutOfMemory(Exception):
    """Memory does not hold a batch; nothing was learned from the optimiser step that it belongs to."""


class Task:
    """One network on its way through a `Schedule`.

    Args:
        network: on the CPU, with its first weights.
        plan: `training` and `labels`.
        fabric: device, precision and the other processes, if any; each learns from an equal share of every batch.
        allow_import: modules that may be imported for a loss of the user's own.
    """

    def __init__(self, network: nn.Module, plan: Plan, fabric: Fabric, *, allow_import: Sequence[str] = ()):
        self.plan, self.allow_import = plan, tuple(allow_import)
        self.training = plan.training
        self.schedule = Schedule(plan.training)
        self.fabric = fabric
        self.loss = loss.build(plan, allow_import)
        self._flat = plan.spatial.dims == 3 and fabric.device.type == "cpu"
        if fabric.world_size > 1:
            network = shared(network, fabric.global_rank, fabric.world_size, cpu=fabric.device.type == "cpu")
        if self.training.frozen_statistics and (encoder := find_encoder(network)) is not None:
            encoder.frozen_statistics = True
        layout = memory_layout(network, plan.spatial.dims, fabric.device)
        self.network = fabric.to_device(network).to(memory_format=layout)  # type: ignore[call-overload]
        self._scaler: torch.amp.GradScaler | None = getattr(fabric.strategy.precision, "scaler", None)
        self._skipped, self._last = 0, 0.0
        # Fabric does not clip the scaled gradients of fp16 before a fused step.
        self.optimiser = schedule.optimiser(self.network, self.training, fused=self._scaler is None)
        # All have the main process' weights from here on.
        self._module, self._optimiser = fabric.setup(self.network, self.optimiser)
        self.mean = copy.deepcopy(self.network).requires_grad_(False).eval() if self.training.ema else None
        self._recorded: CudaGraphRunner | None = None
        fix = "give the same command with --resume and a smaller tile for validation, such as --set inference.tile={}"
        tile = [max(32, side // 2) for side in plan.inference.tile] if plan.inference.tile else [*plan.spatial.patch]
        self._segment = TorchBackend(self._logits, fabric.device, fix=fix.format(json.dumps(tile)))

    @property
    def best(self) -> nn.Module:
        """What is validated and kept: the moving average, where there is one."""
        return self.network if self.mean is None else self.mean

    def record(self, micro_batch_size: int) -> None:
        """On a GPU, prepare to replay steps of one batch (`CudaGraphRunner`).

        Nothing else may use the GPU meanwhile, the loader's thread neither.

        A process of a group computes as written: batch normalisation and the gradients' mean would have to be recorded
        with the other processes in step, and where the memory of one of them lacks, all must give up theirs.

        Args:
            micro_batch_size: samples in a batch.

        Raises:
            TrainingError: it cannot be done here.
        """
        alone = self.fabric.world_size == 1 and self.fabric.device.type == "cuda"
        shipped = zoo.is_shipped(self.plan.network.name, self.plan.network.options)
        if alone and micro_batch_size == self.schedule.group_size(0) and shipped:
            shape = (micro_batch_size, self.plan.in_channels, *self.plan.spatial.patch)
            self._recorded = CudaGraphRunner(self.network, self.fabric, shape)

    @property
    def replays(self) -> bool:
        """Is there something recorded?"""
        return self._recorded is not None and self._recorded.held

    def forget(self) -> bool:
        """Give back the memory of what was recorded; was there any?"""
        if self._recorded is None or not self.replays:
            return False
        self._recorded.forget()
        release(self.fabric.device)
        return True

    def step(self, batches: Iterable[Sample], number: int, patches: Patches) -> float:
        """One optimiser step over the batches from sample ``number`` on, or this process' shares of them.

        The loss is the sum over the samples divided by their count in the group: gradients are those of one large
        batch, batch-norm statistics aside.

        In fp16 a step whose loss or gradient is not finite is left out, and the scale of the losses halved.

        Returns:
            The loss, and leaves it all changed. Of a step left out for its loss it is the loss before, 0 at first.

        Raises:
            TrainingError: the loss or its gradient is not finite, in fp16 `SKIPPED` times in a row; no weight changed.
            OutOfMemory: a batch is too large; nothing was changed, either.
        """
        step, size = self.schedule.step(number), self.schedule.group_size(number)
        for group in self.optimiser.param_groups:
            rate = schedule.learning_rate(step, self.schedule.steps, self.training)
            group["lr"] = rate * group.get("share", 1.0)  # a checkpoint of an earlier version knows no share
        statistics = self._statistics()
        total = self._gradients(batches, number, size, statistics)
        norm = self._clip()
        mean = float(self.fabric.all_reduce(total))  # type: ignore[arg-type]
        place = f"step {step} of {self.schedule.steps}"
        if not math.isfinite(mean) or not math.isfinite(norm):
            what = f"the loss is {mean}" if not math.isfinite(mean) else f"the gradient's norm is {norm}"
            cases = ", ".join(dict.fromkeys(patches.case_of(n).id for n in range(number, number + size)))
            found = f"{what} at {place}; the step's cases: {cases}"
            if self._scaler is None:
                raise self._diverged(found)
            self._restore(statistics)
            self._scaler.update(self._scaler.get_scale() * self._scaler.get_backoff_factor())
            logger.warning("Left out a step, and halved the scale of the losses: %s", found)
            self._count_skipped(found)
            return self._last
        scale = 1.0 if self._scaler is None else self._scaler.get_scale()
        self._optimiser.step()
        if self._scaler is not None and self._scaler.get_scale() < scale:
            self._count_skipped(f"the gradient is not finite at {place}")
        else:
            self._skipped = 0
        self._last = mean
        if self.mean is not None and self.training.ema is not None:
            schedule.average(self.mean, self.network, step, self.training.ema)
        return mean

    def _count_skipped(self, found: str) -> None:
        self._skipped += 1
        if self._skipped >= SKIPPED:
            raise self._diverged(f"fp16 has left out {self._skipped} steps in a row; of the last one {found}")

    def _statistics(self) -> list[tuple[list[torch.Tensor], torch.Tensor]]:
        """The network's buffers and their values, those of a kind in one tensor: few launches on a GPU."""
        buffers = [*self.network.buffers()]
        kinds = [[b for b in buffers if b.dtype is kind] for kind in {b.dtype for b in buffers}]
        return [(kind, torch.cat([b.flatten() for b in kind])) for kind in kinds]

    @staticmethod
    @torch.no_grad()
    def _restore(statistics: list[tuple[list[torch.Tensor], torch.Tensor]]) -> None:
        for kind, before in statistics:
            for buffer, value in zip(kind, before.split([b.numel() for b in kind]), strict=True):
                buffer.copy_(value.view_as(buffer))

    def _gradients(
        self,
        batches: Iterable[Sample],
        number: int,
        size: int,
        statistics: list[tuple[list[torch.Tensor], torch.Tensor]],
    ) -> torch.Tensor:
        """Loss of this process' share of a group, and its gradients in the weights."""
        self._module.train()
        self.optimiser.zero_grad(set_to_none=True)
        try:
            return self._backward(batches, number, size)
        except (RuntimeError, MemoryError) as error:
            if not exhausted(error):
                raise
            found = cause(error)
        # Outside the handler, whose error holds on to all that the attempt had.
        self.optimiser.zero_grad(set_to_none=True)
        self._restore(statistics)
        release(self.fabric.device)
        raise OutOfMemory(found)

    def _backward(self, batches: Iterable[Sample], number: int, size: int) -> torch.Tensor:
        own = size // self.fabric.world_size
        total, done = torch.zeros((), device=self.fabric.device), 0
        for batch in batches:
            done += len(batch["image"]) * self.fabric.world_size
            # Dropout depends on what is learned from, not on how the run came here.
            last = number + done - 1
            seed = np.random.SeedSequence((self.training.seed, _DROPOUT, last)).generate_state(1, np.uint64)[0]
            batch = self.fabric.to_device(batch)
            if self._recorded is not None:
                self._recorded.choose(batch["image"], single=len(batch["image"]) == size)
            torch.manual_seed(int(seed))
            with self.fabric.no_backward_sync(self._module, enabled=done < size):
                with FlatMaps() if self._flat else nullcontext():
                    outputs = self._module(batch["image"])
                losses = self.loss(outputs, batch["codes"])
                value = losses.sum() / own
                self.fabric.backward(value)
            total += value.detach()
        return total

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(
            what,
            fix=f"lower training.learning_rate (now {self.training.learning_rate:g}) or raise training.warmup (now "
            f"{self.training.warmup}); if it happens again at once, set training.precision to fp32, and look at the "
            "cases with `cpfnet check`",
        )

    def _clip(self) -> float:
        """Limit the gradient; its norm before that, 0 where there is no limit or a scaler judges for itself."""
        if self.training.clip is None:
            return 0.0
        norm = self.fabric.clip_gradients(
            self._module, self._optimiser, max_norm=self.training.clip, error_if_nonfinite=False
        )
        return 0.0 if self._scaler is not None or norm is None else float(norm)

    def segment(self, array: np.ndarray) -> np.ndarray:
        """Probabilities of a whole preprocessed case, as `predict_array` gives them.

        Raises:
            TrainingError: the network gives values that are no numbers.
            NetworkError: not even one tile or slice fits into memory.
        """
        return predict_array(self._segment, array, self.plan)

    @torch.inference_mode()
    def _logits(self, image: np.ndarray) -> torch.Tensor:
        """What `best` gives: float32 (N, channels, *spatial) → float32 (N, planes, *spatial), on its device."""
        self.best.eval()
        with self.fabric.autocast():
            out = self.best(self.fabric.to_device(torch.from_numpy(np.ascontiguousarray(image))))
        if not torch.isfinite(out).all():
            raise self._diverged("the last step left a network that gives NaN or infinite values")
        return out.float()

    def state_dict(self) -> dict[str, Any]:
        """All that `step` depends on and changes."""
        return {
            "network": self.network.state_dict(),
            "mean": None if self.mean is None else self.mean.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a `state_dict`."""
        self.network.load_state_dict(state["network"])
        if self.mean is not None:
            self.mean.load_state_dict(state["mean"])
        self.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"]:
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
