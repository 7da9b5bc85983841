"""How long `cpfnet check` takes on many small images with masks, and how much memory: python benchmarks/check.py

Makes the data set (PNG, 0/255 masks) in a temporary folder, then runs the command as a user would, at two sizes: were
memory not flat, the larger would take more.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from cpfnet.cores import cores_in_words

_CHECK = (
    "import resource, sys; from cpfnet.cli.app import main; sys.argv = ['cpfnet', 'check', {!r}]\n"
    "try: main()\n"
    "finally: print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)


def make(root: Path, count: int, side: int) -> None:
    """Colour photographs with noise (they compress badly, as real ones do) and one disc each."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:side, :side]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        row, column, radius = rng.uniform(0.3, 0.7) * side, rng.uniform(0.3, 0.7) * side, rng.uniform(0.1, 0.25) * side
        disc = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        picture = rng.normal(120, 12, (side, side, 3)) + 60 * disc[..., None]
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(root / "images" / f"case_{number:05d}.png")
        Image.fromarray(255 * disc.astype(np.uint8)).save(root / "masks" / f"case_{number:05d}.png")


def measure(root: Path) -> tuple[float, float, str]:
    """Seconds, peak MiB, and the last line that the command printed."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _CHECK.format(str(root))], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    peak = re.search(r"PEAK (\d+)", done.stdout)
    if peak is None:
        raise SystemExit(f"check failed:\n{done.stdout}{done.stderr}")
    return seconds, int(peak[1]) / 1024, done.stdout.splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=256, help="pixels; images are square, of three channels")
    options = parser.parse_args()
    print(cores_in_words())
    for count in (options.images // 10, options.images):
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), count, options.side)
            seconds, peak, output = measure(Path(folder))
        print(
            f"{count} images of {options.side}×{options.side} with masks: "
            f"{seconds:.1f} s, peak {peak:.0f} MiB: {output}"
        )


if __name__ == "__main__":
    main()
