"""No dependency reports to its makers, or leaves its identifiers on this machine: scans and what is done with them are
patients' data.

`cpfnet` calls this before it imports anything else, in every process: commands, their children, Ray's workers, MONAI
bundles.
"""

from __future__ import annotations

import os
import sys

_SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime: uploads, a device id and a database below ~/.cache/Microsoft
    "NNCF_CI": "1",  # NNCF: Google Analytics
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub: what else is installed and who calls, with each request
}
"""Environment variables, which the libraries read at import; child processes inherit them."""


def switch_off() -> None:
    """Switch off the telemetry of all libraries that have one, for this process and those it starts."""
    os.environ.update(_SWITCHES)
    # OpenVINO sends an event to Google Analytics at import, unless this package is missing; it has no other switch.
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
