"""Settings for all tests."""

import os

# One thread a process, before torch is loaded: tests run side by side, and small tensors gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
