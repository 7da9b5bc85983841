"""Try the whole corpus, or a part of it: ``python -m tests.corpus [--family dicom] [--every 10] [--seed 0]``."""

from __future__ import annotations

import argparse
import sys

from tests.corpus.collection import FAMILIES, mutants
from tests.corpus.run import run, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.add_argument("--family", action="append", choices=FAMILIES, help="only this format (repeatable)")
    parser.add_argument("--every", type=int, default=1, help="only each n-th mutant of a format")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness")
    parser.add_argument("--name", default="", help="only mutants with this in their name")
    parser.add_argument("--verbose", action="store_true", help="print every outcome")
    options = parser.parse_args()
    results = []
    for result in run(mutants(options.seed, options.family or FAMILIES, options.every, options.name)):
        results.append(result)
        if options.verbose or not result.right:
            outcome = f"{result.outcome} ({result.seconds:.1f} s): {result.words.strip()}"
            words = f"{result.mutant.family} / {result.mutant.name}: {outcome}"
            print(ascii(words)[1:-1].replace("\\n", "\n    "), flush=True)
    if not results:
        print("no such mutant")
        return 2
    print(table(results))
    return 0 if all(result.right for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
