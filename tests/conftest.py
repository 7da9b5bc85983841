"""Settings for all tests."""

import logging
import os
import sys
from pathlib import Path

from hypothesis import settings

# One thread a process, before torch is loaded: tests run side by side, and small tensors gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Tools that come with packages (dcmqi, GDCM) lie beside the interpreter, which need not be on the path.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

# How long an example takes tells of the machine's load, not of the code.
settings.register_profile("cpfnet", deadline=None)
settings.load_profile("cpfnet")

# `caplog` holds all that users of the program see, not only warnings.
logging.getLogger("cpfnet").setLevel(logging.INFO)
