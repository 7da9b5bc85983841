"""A terminal that is gone: what is written there must not end the work."""

from __future__ import annotations

import os
import select


def leave_terminal() -> None:
    """Let messages go nowhere where the terminal or pipe that they went to is closed: writing there is an error from then on."""
    for stream in (1, 2):
        poll = select.poll()
        poll.register(stream, 0)
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)
