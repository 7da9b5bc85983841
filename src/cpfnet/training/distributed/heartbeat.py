"""Notice a process that is gone without a word.

One that ends closes its connections, and the others hear of it at once. One that is stopped, or whose machine or
network is gone, does not: the others would wait for it as long as they would for the main process when it prepares
cases. So each process counts up a number in the group's store, whatever it is at, and looks whether the others' numbers
move.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from torch.distributed import Store

BEAT = 10.0
"""Seconds between two beats."""

SILENCE = 30
"""Beats of one's own without one of another's, after which that one is given up: five minutes, longer than any single
call that keeps a process' other threads from running. Where all are suspended together, none counts meanwhile."""

COMING = 72
"""Beats for one that has not come yet: longer than the meeting (`process_group.MEETING`), whose end says it better."""

PARTING = 10.0
"""Seconds to wait for a last answer from the store, which may be gone."""

_LEFT = -(2**62)
"""Brings a number far below 0: the process has done its work."""


@contextmanager
def watched(store: Store, rank: int, size: int, lost: Callable[[Sequence[int]], None]) -> Iterator[None]:
    """Beat, and watch the others.

    Args:
        store: the group's; the others may come later.
        rank, size: which of how many this process is.
        lost: called once, in another thread, with the ranks of those that were silent for `SILENCE` beats, or for
            `COMING` at the beginning. Where no answer comes from the store, that is all of them: the first process
            holds it.
    """
    watch = _Watch(store, rank, size, lost)
    threads = [threading.Thread(target=work, daemon=True) for work in (watch.talk, watch.listen)]
    for thread in threads:
        thread.start()
    try:
        yield
        watch.done = True
    finally:
        watch.leaving.set()
        for thread in threads:
            thread.join(PARTING)


class _Watch:
    """Two threads: what talks to the store may wait for it for ever, what counts silent beats may not."""

    def __init__(self, store: Store, rank: int, size: int, lost: Callable[[Sequence[int]], None]):
        self.store, self.rank, self.lost = store, rank, lost
        self.others = [other for other in range(size) if other != rank]
        self.heard = dict.fromkeys(self.others, 0)
        self.leaving, self.done = threading.Event(), False

    def talk(self) -> None:
        with suppress(RuntimeError):  # the store is gone, and all are silent from now on
            # One that waits for an answer keeps its other users waiting. Before 2.8, PyTorch has no way around it.
            store: Store = getattr(self.store, "clone", lambda: self.store)()
            while not self.leaving.wait(BEAT):
                store.add(_name(self.rank), 1)
                for other in self.others:
                    self.heard[other] = store.add(_name(other), 0)
            if self.done:  # whom an error has ended is missed
                store.add(_name(self.rank), _LEFT)

    def listen(self) -> None:
        before, silent = dict(self.heard), dict.fromkeys(self.others, 0)
        while not self.leaving.wait(BEAT):
            for other, beats in list(self.heard.items()):
                silent[other] = 0 if beats < 0 or beats != before[other] else silent[other] + 1
                before[other] = beats
            gone = [other for other in self.others if silent[other] >= (SILENCE if before[other] else COMING)]
            if gone:
                self.lost(gone)
                return


def _name(rank: int) -> str:
    return f"cpfnet/beat/{rank}"
