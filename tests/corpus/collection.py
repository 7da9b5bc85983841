"""The whole corpus, in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.corpus import dicom, images, places, settings, volumes, weights
from tests.corpus.mutant import Mutant

_MODULES = (images, volumes, dicom, settings, weights, places)
FAMILIES = tuple(family for module in _MODULES for family in module.FAMILIES)


def mutants(seed: int = 0, families: Sequence[str] = FAMILIES, every: int = 1, name: str = "") -> Iterator[Mutant]:
    """Mutants of these families; of each family every n-th, beginning with the first."""
    seen: dict[str, int] = defaultdict(int)
    for module in _MODULES:
        if not set(module.FAMILIES) & set(families):
            continue
        for mutant in module.mutants(seed):
            if mutant.family in families and name in mutant.name:
                if seen[mutant.family] % every == 0:
                    yield mutant
                seen[mutant.family] += 1
