"""Who is missed, and when: a process is one of two here, and the other one's beats are written for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from torch.distributed import Store, TCPStore

from cpfnet.training.distributed import heartbeat


class Before28:
    """A store as PyTorch 2.6 and 2.7 have it: it cannot be cloned."""

    def __init__(self, store: Store):
        self.add = store.add


@pytest.mark.parametrize("kind", [lambda store: store, Before28])
def test_one_that_has_not_come_yet_is_given_longer_than_one_that_falls_silent(
    monkeypatch: pytest.MonkeyPatch, kind: Callable[[Store], Any]
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT", 0.01)
    monkeypatch.setattr(heartbeat, "SILENCE", 3)
    monkeypatch.setattr(heartbeat, "COMING", 10**6)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=30))
    missed, called = list[int](), threading.Event()

    def lost(ranks: Sequence[int]) -> None:
        missed.extend(ranks)
        called.set()

    with heartbeat.watched(kind(store), 0, 2, lost):
        for _ in range(6000):
            assert not called.wait(0.01)
            if store.add("cpfnet/beat/0", 0) > 20:
                break
        store.add("cpfnet/beat/1", 1)
        assert called.wait(60)
    assert missed == [1]
