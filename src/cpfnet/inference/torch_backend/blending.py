"""Softmax and the sums of weighted tiles on the device that the network runs on: as `inference.blending`, in PyTorch.

What is found stays on the device until its planes are complete. There, additions are launched, not waited for: while
the device computes, the next pieces are cut. The device's memory may be too small for the sums: they go on in that of
the machine.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cpfnet.inference.backends.out_of_memory import exhausted, release
from cpfnet.inference.blending import Blend, check_shape, not_finite
from cpfnet.inference.tiling import Backend
from cpfnet.planning import Plan

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


class DeviceBlend(Blend):
    """`Blend` on a device.

    Args:
        outputs, grid: see `Blend`.
        place: the device.
    """

    def __init__(self, outputs: int, grid: tuple[int, ...], place: torch.device):
        self.place = place
        self._finite = torch.ones((), dtype=torch.bool, device=place)
        super().__init__(outputs, grid)

    @torch.no_grad()
    def find(self, backend: Backend, pieces: np.ndarray, plan: Plan) -> Tensor:
        """See `Blend.find`; values that are no numbers are an error of `take`, since looking for them would wait."""
        kept_there: Any = backend
        logits = torch.as_tensor(kept_there.logits(pieces), device=self._finite.device)
        check_shape(tuple(logits.shape), pieces, plan)
        self._finite &= torch.isfinite(logits).all()
        return logits.softmax(dim=1) if plan.labels.exclusive else logits.sigmoid()

    def put(self, array: np.ndarray) -> Tensor:
        """See `Blend.put`."""
        return torch.from_numpy(array).to(self._finite.device)

    def copied(self, array: Tensor) -> Tensor:
        """See `Blend.copied`."""
        return array.clone()

    @torch.no_grad()
    def take(self, stop: int) -> np.ndarray:
        """See `Blend.take`.

        Raises:
            NetworkError: the network gave values that are no numbers.
        """
        if not self._finite:
            raise not_finite()
        return super().take(stop)

    def _zeros(self, count: int) -> Tensor:
        shape = (self.outputs, count, *self.grid[1:])
        try:
            return self._on_device(shape)
        except RuntimeError as error:
            if not exhausted(error):
                raise
        release(self.place)
        logger.warning("%s has no memory for %d planes of probabilities: blending on the CPU", self.place, count)
        self.place = torch.device("cpu")
        return torch.zeros(shape)

    def _on_device(self, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, device=self.place)

    def _turned_back(self, planes: Tensor, axes: tuple[int, ...], turns: int) -> Tensor:
        return torch.flip(torch.rot90(planes, -turns, (-2, -1)), axes).to(self.place)

    def _given(self, planes: Tensor) -> np.ndarray:
        return planes.cpu().numpy()
