"""Who is missed, and when: a process is one of two here, and the other one's beats are written for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from cpfnet.training.distributed import heartbeat


def test_one_that_has_not_come_yet_is_given_longer_than_one_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT", 0.01)
    monkeypatch.setattr(heartbeat, "SILENCE", 3)
    monkeypatch.setattr(heartbeat, "COMING", 10**6)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=30))
    missed, called = list[int](), threading.Event()

    def lost(ranks: Sequence[int]) -> None:
        missed.extend(ranks)
        called.set()

    with heartbeat.watched(store, 0, 2, lost):
        while store.add("cpfnet/beat/0", 0) < 20:
            assert not called.is_set()
        store.add("cpfnet/beat/1", 1)
        assert called.wait(60)
    assert missed == [1]
