"""Large jobs in parts that know nothing of each other: each takes its share of the inputs."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cpfnet.errors import CpfnetError
from cpfnet.inference.batch.item import Item


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``count``, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``"3/8"``.

        Raises:
            CpfnetError: it is not of that form, or there is no such part.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise CpfnetError(
                f"{text!r} is no part of a job", where="--shard", fix="give i/n, i from 1 to n, such as 3/8"
            )
        return cls(int(found[1]), int(found[2]))

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The share of this part.

        It follows from an input's name alone, so all parts agree on it, wherever the inputs are mounted and whatever is
        added to them meanwhile. Shares of many inputs are nearly equal.
        """
        return [
            item
            for item in items
            if int(hashlib.sha256(os.fsencode(item.name)).hexdigest(), 16) % self.count == self.number - 1
        ]

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"
