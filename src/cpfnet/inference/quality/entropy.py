"""How uncertain a prediction is of each pixel: the entropy of its probabilities. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def entropy(planes: Iterable[np.ndarray], *, exclusive: bool) -> np.ndarray:
    """Entropy of each pixel's probabilities, as a share of the largest that there can be.

    Of probabilities averaged over mirrored and turned copies and Models it is the total predictive uncertainty (Gal and
    Ghahramani, ICML 2016; Lakshminarayanan et al., NeurIPS 2017): how uncertain the passes are, and how they disagree.

    Args:
        planes: probabilities 0…1, one plane ``([depth,] height, width)`` after another, so that a volume's need not all
            be in memory: for exclusive labels background and classes, at least two, which sum to 1; else one a region.
        exclusive: regions that may overlap are each there or not: the mean of their binary entropies.

    Returns:
        float32 ``([depth,] height, width)``, 0 (certain) … 1 (all classes equally likely).
    """
    from scipy.special import entr

    total = np.zeros((), dtype=np.float32)
    count = 0
    for plane in planes:
        total = total + entr(plane)
        if not exclusive:
            total += entr(1 - plane)
        count += 1
    return np.clip(total / np.float32(np.log(count) if exclusive else count * np.log(2)), 0, 1).astype(np.float32)
