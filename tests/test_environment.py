"""Variables that hold for a while."""

from __future__ import annotations

import os

import pytest

from cpfnet.environment import environment


def test_what_was_there_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPFNET_ONE", "before")
    monkeypatch.delenv("CPFNET_TWO", raising=False)

    def use() -> None:
        with environment({"CPFNET_ONE": "1", "CPFNET_TWO": "2"}):
            assert (os.environ["CPFNET_ONE"], os.environ["CPFNET_TWO"]) == ("1", "2")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        use()
    assert os.environ["CPFNET_ONE"] == "before"
    assert "CPFNET_TWO" not in os.environ
