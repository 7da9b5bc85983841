"""Addresses of Models on a hub, apart from paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpfnet.errors import CpfnetError
from cpfnet.sharing.address import HubAddress, is_hub_address

names = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,20}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda name: ".." not in name and "--" not in name
)
revisions = st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}(/[a-z0-9]{1,9})?", fullmatch=True)


@given(names, names, revisions)
def test_an_address_survives_being_written_and_being_taken_for_a_path(
    owner: str, name: str, revision: str | None
) -> None:
    address = HubAddress(f"{owner}/{name}", revision)
    path = Path(str(address))
    assert is_hub_address(str(address))
    assert is_hub_address(path)
    assert HubAddress.parse(str(address)) == HubAddress.parse(path.as_posix()) == address
    assert HubAddress.parse(str(address).removeprefix("hf://")) == address


@pytest.mark.parametrize(
    "text",
    ["", "anna", "anna/", "/vessels", "a/b/c", "datasets/a/b", "../b", "a/..", "a/b@", "a/b@../x", "a/b@v 1", "a/b--c",
     "a/b@@v", "hf://", "a/b\n", "a/b?x=1", "https://hub.example/a/b", "a/-b"],
)  # fmt: skip
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(CpfnetError, match="write it as OWNER/NAME"):
        HubAddress.parse(text)


def test_only_a_whole_commit_is_pinned_and_paths_are_no_addresses() -> None:
    assert HubAddress.parse(f"a/b@{'0' * 40}").is_pinned
    assert not any(HubAddress.parse(f"a/b{more}").is_pinned for more in ("", "@main", "@0000000"))
    assert not any(is_hub_address(path) for path in ("a/b", Path("hf"), "hf/a", "models/hf:/x", "x.zip"))
