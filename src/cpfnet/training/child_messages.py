"""What a process logs that trains for another one reaches the loggers of that."""

from __future__ import annotations

import logging
import logging.handlers
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from cpfnet.progress import bars_hidden


def log_to_parent(parent: Any, level: int, prefix: str = "") -> None:
    """Give what this process logs to the one that started it.

    Args:
        parent: a connection, at whose other end is `logged_here`.
        level: from which on messages are wanted.
        prefix: before each message: who says it.
    """
    logger = logging.getLogger("cpfnet")
    logger.setLevel(level)
    handler = _ToParent(parent)
    handler.setFormatter(logging.Formatter(f"{prefix.replace('%', '%%')}%(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    os.register_at_fork(after_in_child=lambda: logger.removeHandler(handler))  # helpers would talk in between


class _ToParent(logging.handlers.QueueHandler):
    """Gives a record to the process that started this one, and waits until it is handled, with no bar in between."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with bars_hidden(), suppress(OSError, EOFError):  # who has no parent any more is about to end
            parent: Any = self.queue
            parent.send(record)
            parent.recv()


@contextmanager
def logged_here(child: Connection, grace: float) -> Iterator[None]:
    """Hand what a child logs (`log_to_parent`) to this process' own loggers.

    Args:
        child: the connection to it.
        grace: seconds in which helpers of the child, which may outlive it for a moment, are waited for in the end.
    """

    def listen() -> None:
        # The child has ended; or a handler failed, and the child must not wait for it.
        with child, suppress(OSError, EOFError):
            while True:
                record = child.recv()
                logger = logging.getLogger(record.name)
                if logger.isEnabledFor(record.levelno):
                    logger.handle(record)
                child.send(None)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(grace)
