"""Read files that torch wrote without running what is in them: they are pickles, and a pickle may call any program."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from cpfnet.errors import WeightsError

MORE = (
    "holds more than tensors, or is damaged; "
    "a file of this kind (pickle) can run programs when it is loaded, so it was not loaded"
)
SAFE = (
    "if you trust its source, write the tensors alone where it was made: "
    'safetensors.torch.save_file(model.state_dict(), "weights.safetensors")'
)


def load_tensors(path: Path) -> Any:
    """Tensors, numbers, texts and containers of them, on the CPU.

    Args:
        path: a file of `torch.save`, of the ZIP kind or the older one.

    Raises:
        WeightsError: it holds anything else, or is damaged. torch's own message is not repeated: it recommends running
            the file.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():  # a stream: for a path, torch trusts the suffix
            warnings.simplefilter("ignore")  # about pickle protocols; errors are raised
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged bytes raise nearly anything
        message = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, UnpicklingError) or re.search("weights.only", message, re.IGNORECASE):
            raise WeightsError(MORE, where=path, fix=SAFE) from None
        raise WeightsError(f"damaged or cut off: {message}", where=path, fix="fetch it again") from None
