"""A case: an image that is kept to be labelled, and the versions of its label."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cpfnet.image import Assessment

LabelState = Literal["draft", "accepted", "rejected"]

TEST_SHARE = 0.2
"""Of the patients, how many are set aside as test."""


@dataclass(frozen=True)
class Label:
    """One version of a case's label; it never changes.

    Attributes:
        version: of the case, from 1; the next one is made from it.
        author: who made it; "" where the server has no users.
        state: ``draft``, ``accepted`` or ``rejected``.
        untouched: it says just what the Model said, so it is no evidence of anything.
        model: digest of the Model whose mask it was made from: its Dice with that Model is no evidence. None: from
            nothing.
        name, digest: of its file.
        created: seconds since 1970.
    """

    version: int
    author: str
    state: LabelState
    untouched: bool
    model: str | None
    name: str
    digest: str
    created: float


@dataclass(frozen=True)
class Case:
    """A row of the store.

    Attributes:
        id: made from its image, which gives nothing away.
        input: digest of the manifest of its files.
        images: those of them that are the image.
        patient: a pseudonym.
        split: ``"test"``: set aside; None: trains or validates.
        model: digest of the Model whose mask it came with.
        kept: digest of what that mask says (`label_maps.keep`).
        quality: estimate of that mask's.
        created: seconds since 1970.
        labels: all versions, in order.
    """

    id: str
    input: str
    images: tuple[str, ...]
    patient: str
    split: str | None
    model: str
    kept: str
    quality: Assessment
    created: float
    labels: tuple[Label, ...] = ()

    @property
    def version(self) -> int:
        """Of the newest label; 0: there is none."""
        return self.labels[-1].version if self.labels else 0

    @property
    def counting(self) -> dict[str, Label]:
        """By author, the label that counts (`counting`)."""
        return counting(self.labels)


def counting(labels: Sequence[Label]) -> dict[str, Label]:
    """Which label counts: for each reader the newest accepted version.

    A draft changes nothing. A newer version that the reader rejected, or that is a Model's mask as it was, takes the
    older one back: then none counts.
    """
    newest = {label.author: label for label in labels if label.state != "draft"}
    return {author: label for author, label in newest.items() if label.state == "accepted" and not label.untouched}


def case_id(input: str) -> str:
    """The id of the case of an image, from the digest of its manifest."""
    return f"case-{input[:12]}"


def split_of(patient: str) -> str | None:
    """``"test"`` for a fifth of all patients, the same wherever and whenever it is asked; else None."""
    number = int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16)
    return "test" if number < TEST_SHARE * 2**32 else None
