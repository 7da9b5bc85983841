"""A network that knows the answer: images whose brightness is the class, and the pointwise function that reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cpfnet.inference.tiling import Backend
from cpfnet.model import Fitted, FittedChannel, Model
from cpfnet.network import zoo
from cpfnet.planning import Channel, InferencePlan, Intensity, Labels, NetworkPlan, Plan, Scale, Spatial, TrainingPlan

SHARPNESS = 1000.0
FULL = 200.0
"""Brightness of the last class; class k of n has k/n of it."""


class Oracle(torch.nn.Module):
    """Logits of plane k fall with the distance of the middle slice's first channel from brightness k / (planes − 1)."""

    def __init__(self, in_channels: int, classes: int, *, spatial_dims: int, middle: int = 0):
        super().__init__()
        self.in_channels, self.classes, self.spatial_dims, self.middle = in_channels, classes, spatial_dims, middle
        self.sharpness = torch.nn.Parameter(torch.tensor([SHARPNESS]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = torch.linspace(0, 1, self.classes).reshape(1, -1, *[1] * self.spatial_dims)
        return -self.sharpness * (x[:, self.middle : self.middle + 1] - steps).abs()


def register() -> None:
    if "oracle" not in zoo.names():
        zoo.register("oracle", Oracle)


def oracle(model: Model) -> Backend:
    """The same in NumPy."""
    plan = model.plan
    middle = plan.spatial.neighbours * len(plan.channels)

    def backend(x: np.ndarray) -> np.ndarray:
        assert x.dtype == np.float32
        assert x.shape[1] == plan.in_channels
        assert min(x.shape[2:]) >= 32
        steps = np.linspace(0, 1, plan.labels.outputs, dtype=np.float32).reshape(1, -1, *[1] * (x.ndim - 2))
        return -np.float32(SHARPNESS) * np.abs(x[:, middle : middle + 1] - steps)

    return backend


def bright(mask: np.ndarray, classes: int) -> np.ndarray:
    """An image for a mask with 0 … classes: uint8 of the mask's shape."""
    return np.rint(mask * (FULL / classes)).astype(np.uint8)


def make_model(
    *,
    source: str = "volumes",
    values: tuple[int | str, ...] = (1, 2, 3),
    channels: int = 1,
    intensity: Intensity | None = None,
    labels: Labels | None = None,
    inference: dict[str, Any] | None = None,
    fitted: dict[str, Any] | None = None,
    modality: str = "other",
    change: Callable[[Plan], Plan] = lambda plan: plan,
    **spatial: Any,
) -> Model:
    """A Model of the oracle; ``values`` are those of the label files."""
    spatial.setdefault("patch", (32, 32, 32) if spatial.get("mode") == "3d" else (32, 32))
    register()
    named = [{"name": f"class {value}", "values": [value]} for value in values]
    plan = change(
        Plan(
            name="oracle",
            modality=modality,
            source=source,
            channels=tuple(
                Channel(name=f"channel{i}", intensity=intensity or Scale(full=FULL)) for i in range(channels)
            ),
            labels=labels or Labels(classes=named),
            spatial=Spatial(**spatial),
            network=NetworkPlan(
                name="oracle", options={"middle": spatial.get("neighbours", 0) * channels}, weights="none"
            ),
            training=TrainingPlan(samples=1),
            inference=InferencePlan(**(inference or {})),
        )
    )
    return Model(
        plan,
        Fitted(
            **{
                "plan_hash": plan.hash,
                "cases": 1,
                "epochs": 1,
                "channels": tuple(FittedChannel(name=c.name, low=0, high=FULL) for c in plan.channels),
            }
            | (fitted or {})
        ),
        state={"sharpness": torch.tensor([SHARPNESS])},
    )
