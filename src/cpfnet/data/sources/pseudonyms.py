"""Names for cases and patients of DICOM studies that give nothing away.

They are the user's own folder names, or digests of UIDs.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from cpfnet.text import printable

_UID = re.compile(r"[0-9]+(\.[0-9]+){4,}")


def digest(uid: str) -> str:
    """Eight hexadecimal digits in place of a UID."""
    return hashlib.sha256(uid.encode()).hexdigest()[:8]


def patient_of(studies: Iterable[str]) -> str:
    """A patient's pseudonym, from the StudyInstanceUIDs of all studies.

    A PatientID could be found again by guessing.
    """
    return f"patient-{digest(min(studies))}"


def case_ids(folders: Sequence[tuple[str, ...]], uids: Sequence[str], fallback: str) -> list[str]:
    """One id a series: of its folder names those that tell it apart from others, or else one of them and a digest.

    Args:
        folders: of each series the names of the folders that it lies in, from the data set's root down.
        uids: of each series its SeriesInstanceUID, or another that no other has.
        fallback: the root's own name, for what lies in the root.
    """
    ids = [""] * len(folders)

    def name(group: list[int], depth: int, names: tuple[str, ...]) -> None:
        if len(group) == 1 and names:
            ids[group[0]] = "_".join(names)
            return
        parts: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index in group:
            parts[folders[index][depth : depth + 1]].append(index)
        for part, members in parts.items():
            if not part:  # these lie in one folder
                place = "_".join(names) or _component(folders[members[0]][-1] if folders[members[0]] else fallback)
                for index in members:
                    ids[index] = place if len(members) == 1 else f"{place}-{digest(uids[index])}"
            else:
                alone = len(group) == 1 or len(parts) > 1
                name(members, depth + 1, (*names, _component(part[0])) if alone else names)

    name(list(range(len(folders))), 0, ())
    often = Counter(ids)
    return [f"{one}-{digest(uid)}" if often[one] > 1 else one for one, uid in zip(ids, uids, strict=True)]


def _component(name: str) -> str:
    """A folder name as part of an id; UIDs, as archives name folders by, are shortened."""
    name = unicodedata.normalize("NFC", printable(name))
    return digest(name) if _UID.fullmatch(name) else name
