"""What a job ends with where the worker itself is in trouble."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from cpfnet.serve import worker


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk of the server is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk of the server is full"),
        (OSError(errno.EIO, "Input/output error"), "unexpected OSError"),
        (OSError("without a number"), "unexpected OSError"),
        (MemoryError(), "does not fit into memory"),
    ],
)
def test_a_full_disk_is_told_from_other_trouble(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def segment(*args: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(worker, "segment", segment)
    claim, heartbeat = SimpleNamespace(job=SimpleNamespace(id="one")), SimpleNamespace(show=None)
    ending = worker._work(claim, None, None, 1, heartbeat)  # type: ignore[arg-type]
    assert ending.state == "failed"
    assert message in ending.message
    assert "job one" in caplog.text  # whoever runs the server finds it
