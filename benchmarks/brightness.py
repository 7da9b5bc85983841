"""How often images are flagged for their brightness: python benchmarks/brightness.py DATA

DATA holds PH2, DRIVE/training, STARE_10 and ChestXray (of which every second image is taken). Some images stand for
training images, at random, 40 times; the share of the others that `cpfnet.inference.quality.brightness` flags, as they
are and darker or brighter, is the mean. No network is involved.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cpfnet import formats
from cpfnet.inference.quality.brightness import QUANTILES, departure
from cpfnet.planning import Scale
from cpfnet.preprocessing.intensity import levels

DRAWS = 40
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda unit: unit,
    "darker (gamma 2)": lambda unit: unit**2,
    "brighter (gamma 1/2)": lambda unit: unit**0.5,
    "darker (gamma 1.5)": lambda unit: unit**1.5,
    "darker (× 0.6)": lambda unit: 0.6 * unit,
}


def measure(folder: Path, step: int = 1) -> np.ndarray:
    """The levels of every image, or every so many, (images, changes, channels, 3)."""
    rows = []
    for path in sorted(folder.iterdir())[::step]:
        array = formats.read(path).array
        if (array == array[:1]).all():  # grey, stored in colours
            array = array[:1]
        rows.append([[levels(255 * change(x / 255), Scale()) for x in array] for change in CHANGES.values()])
    return np.array(rows, dtype=float)


def flagged(training: np.ndarray, others: np.ndarray, which: list[int]) -> np.ndarray:
    """Share of the others that is flagged, for each change, by some of the levels."""
    seen = training[:, 0]
    ranges = np.stack([seen.min(axis=0), seen.max(axis=0)], axis=-1)
    found = [
        [
            any(
                departure(values[k], tuple(bounds[k]), len(training), bounds[-1, 1] - bounds[0, 0])
                for values, bounds in zip(channels, ranges, strict=True)
                for k in which
            )
            for channels in image
        ]
        for image in others
    ]
    return np.mean(found, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    places = {"PH2": "PH2", "DRIVE": "DRIVE/training", "STARE": "STARE_10", "ChestXray": "ChestXray"}
    found = {name: measure(data / place / "images", 2 if name == "ChestXray" else 1) for name, place in places.items()}
    print(f"| training images | others | flagged by | {' | '.join(CHANGES)} |")
    print(f"|---|---|---|{'---|' * len(CHANGES)}")
    for name, count, other in (
        ("PH2", 63, "PH2"),
        ("PH2", 16, "PH2"),
        ("ChestXray", 57, "ChestXray"),
        ("ChestXray", 16, "ChestXray"),
        ("DRIVE", 16, "DRIVE"),
        ("DRIVE", 16, "STARE"),
    ):
        for title, which in (("median alone", [1]), ("all three", list(range(len(QUANTILES))))):
            shares = []
            for draw in range(DRAWS):
                order = np.random.default_rng(draw).permutation(len(found[name]))
                others = found[other][order[count:]] if other == name else found[other]
                shares.append(flagged(found[name][order[:count]], others, which))
            figures = " | ".join(f"{share:.0%}" for share in np.mean(shares, axis=0))
            rest = f"the other {len(found[name]) - count}" if other == name else f"{len(found[other])} of {other}"
            print(f"| {count} of {name} | {rest} | {title} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
