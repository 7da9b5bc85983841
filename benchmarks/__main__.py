"""python -m benchmarks NAME …: run one of the modules beside this file; NAME --help says what it measures."""

import sys
from pathlib import Path
from runpy import run_module

OTHERS = ("__init__", "__main__", "measure")
NAMES = sorted({path.stem for path in Path(__file__).parent.glob("*.py")} - {*OTHERS} | {"accuracy"})

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(f"python -m benchmarks NAME, NAME being one of {', '.join(NAMES)}")
    name = sys.argv.pop(1)
    sys.argv[0] = f"python -m benchmarks {name}"
    run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=False)
