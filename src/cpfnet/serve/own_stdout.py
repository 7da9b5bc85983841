"""Standard output of a child process as a channel to its parent."""

from __future__ import annotations

import os
from typing import TextIO


def own_stdout() -> TextIO:
    """Standard output for messages to the parent alone: what libraries print goes to standard error."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel
