"""The progress bars of huggingface_hub, only where ours would show, too."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


@contextmanager
def bars() -> Iterator[None]:
    """Switch them off outside a terminal, and where messages are not wanted either."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    wanted = sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)
    if wanted or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
