"""A terminal that was closed must not end the work."""

from __future__ import annotations

import os
import select


def leave_terminal() -> None:
    """Discard messages once the terminal or pipe that they went to is closed: writing there would raise an error."""
    for stream in (1, 2):
        poll = select.poll()
        poll.register(stream, 0)
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)
