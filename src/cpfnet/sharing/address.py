"""Where a Model lies on a hub: ``OWNER/NAME@REVISION``, and ``hf://`` before it where a path could stand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from cpfnet.errors import CpfnetError

SCHEME = "hf://"
_PREFIX = re.compile(r"hf:/{1,2}")  # pathlib makes one slash of two
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9][\w./-]{{0,199}}))?", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class HubAddress:
    """A Model on a hub.

    Attributes:
        repository: ``"OWNER/NAME"``.
        revision: branch, tag or commit; None: the main branch.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}" + (f"@{self.revision}" if self.revision else "")

    @property
    def is_pinned(self) -> bool:
        """Does it mean the same files for ever?"""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """From ``OWNER/NAME``, ``OWNER/NAME@REVISION``, with or without ``hf://``.

        Raises:
            CpfnetError: it is none of these.

        Example:
            >>> HubAddress.parse("hf://anna/vessels@v1")
            HubAddress(repository='anna/vessels', revision='v1')
        """
        found = _ADDRESS.fullmatch(_PREFIX.sub("", text, count=1))
        if found is None or ".." in text or "--" in found[1]:
            raise CpfnetError(
                "is no address of a Model on a hub",
                where=text,
                fix="write it as OWNER/NAME, or OWNER/NAME@REVISION (a commit, tag or branch); in place of a folder, "
                f"with {SCHEME} before it",
            )
        return cls(found[1], found[2])


def is_hub_address(argument: str | PathLike[str]) -> bool:
    """Does this begin as an address on a hub, and not as a path?"""
    return _PREFIX.match(Path(argument).as_posix()) is not None
