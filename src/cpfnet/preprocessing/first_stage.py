"""What a first stage found, as the second one sees it: beside the image's channels one plane a class, 0 or 1.

On its way there it is one code map (`cpfnet.labels`), the last channel of the prepared array: a hundred planes of a CT
would fill memory. It becomes planes where a piece is given to the network.
"""

from __future__ import annotations

import numpy as np

from cpfnet.labels import look_up, membership
from cpfnet.planning import Labels, Plan


def planes(codes: np.ndarray, labels: Labels) -> np.ndarray:
    """A code map ``([depth,] height, width)`` as bool ``(classes, [depth,] height, width)``; regions may overlap."""
    table = membership(labels)
    return np.stack([look_up(table[:, k], codes) for k in range(len(labels.classes))])


def expand(array: np.ndarray, plan: Plan) -> np.ndarray:
    """A prepared piece as the network takes it.

    Args:
        array: float32 ``(channels, …)``; where the plan has a `first_stage`, the last channel is its code map.
        plan: whose network it is.

    Returns:
        float32 ``(plan.in_channels, …)``; ``array`` itself where the plan has no first stage.
    """
    if not plan.first_stage:
        return array
    return np.concatenate([array[:-1], planes(array[-1].astype(np.uint8), plan.labels).astype(np.float32)])
