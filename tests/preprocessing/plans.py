"""Small plans for these tests."""

from __future__ import annotations

from typing import Any

from cpfnet.planning import Channel, Intensity, LabelClass, Labels, MinMax, Plan, Spatial, TrainingPlan


def make_plan(
    source: str = "volumes",
    *,
    classes: int = 3,
    channels: int = 1,
    intensity: Intensity | None = None,
    labels: Labels | None = None,
    **spatial: Any,
) -> Plan:
    """Classes ``c1`` … with the values 1 …, min–max channels, no resampling."""
    spatial.setdefault("patch", (32, 32, 32) if spatial.get("mode") == "3d" else (32, 32))
    return Plan(
        name="test",
        source=source,
        channels=tuple(Channel(name=f"channel{i}", intensity=intensity or MinMax()) for i in range(channels)),
        labels=labels
        or Labels(classes=tuple(LabelClass(name=f"c{value}", values=(value,)) for value in range(1, classes + 1))),
        spatial=Spatial(**spatial),
        training=TrainingPlan(samples=1),
    )
