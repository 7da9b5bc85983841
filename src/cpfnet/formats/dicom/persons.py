"""Names of structures that may be names of persons: found by the names in the headers, and by how names are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import pydicom

from cpfnet.formats.dicom.attributes import text

_PERSONS = (
    *("PatientName", "PatientBirthName", "PatientMotherBirthName", "OtherPatientNames", "ResponsiblePerson"),
    *("ReferringPhysicianName", "PerformingPhysicianName", "PhysiciansOfRecord", "RequestingPhysician"),
    *("NameOfPhysiciansReadingStudy", "OperatorsName", "ReviewerName"),
)

_WORD = re.compile(r"[^\W\d_]+")
_HUMP = re.compile(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])|(?<=[A-ZÀ-Þ])(?=[A-ZÀ-Þ][a-zß-ÿ])")
_CARET = re.compile(r"[^\W\d_]{2,}\^+[^\W\d_]{2,}")
"""As DICOM writes them: Family^Given."""
_COMMA = re.compile(r"\s*([^\W\d_][\w'’-]+),\s*([^\W\d_](?:[\w'’-]+|\.))[\w .'’-]*")
"""Family, Given; or with initials."""
_TITLE = re.compile(r"(?<![^\W_])(Dr|DR|Prof|Mr|Mrs|Ms|Herr|Frau|Mme)\.?[\s_]+[A-ZÀ-Þ][^\W\d_]+")

_IDEOGRAPHS = "\u3040"
"""Kana, and with them the scripts in which one or two characters make a name."""

_OTHERS = frozenset(
    ["bowel", "boost", "ctv", "glioma", "gtv", "itv", "margin", "oar", "ptv", "residual", "ring", "sum", "union"]
)
"""Words of structures that DICOM's codes do not contain."""


def persons(header: pydicom.Dataset) -> frozenset[str]:
    """Words of the names of persons in a header; for comparisons, never to show. Names with digits are pseudonyms."""
    names = (text(header, keyword) for keyword in _PERSONS)
    return frozenset(w for name in names if not any(map(str.isdigit, name)) for w in _words(name) if _is_long(w))


def personal(names: Sequence[str], known: frozenset[str]) -> tuple[int, ...]:
    """The numbers of names, counted from 1, that may be a person's.

    Args:
        names: of structures.
        known: `persons` of the headers that these names come from.
    """
    return tuple(number for number, name in enumerate(names, start=1) if _is_personal(name, known))


def _is_personal(name: str, known: frozenset[str]) -> bool:
    parts = {*_words(name), *_words(_HUMP.sub(" ", name))}
    parts |= {word for word in known if word[0] >= _IDEOGRAPHS and word in name}  # without spaces between words
    if any(word not in _medical() for word in parts & known):
        return True
    if _CARET.search(name) or _TITLE.search(name):
        return not parts <= _medical()
    written = _COMMA.fullmatch(name)
    return written is not None and all(
        word[0].isupper()
        and not (word.isupper() and word.isalpha() and len(word) < 4)
        and _plain(word) not in _medical()
        for word in written.groups()
    )


def _words(name: str) -> list[str]:
    return [_plain(word) for word in _WORD.findall(name)]


def _plain(word: str) -> str:
    """Without accents and case."""
    return "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(c))


def _is_long(word: str) -> bool:
    """Is it so long that it does not occur by chance?"""
    return len(word) >= (2 if word[0] >= _IDEOGRAPHS else 3)


@cache
def _medical() -> frozenset[str]:
    """Words of anatomy and findings, by the codes that DICOM uses."""
    from pydicom.sr.codedict import codes

    words = (word.casefold() for keyword in codes.SCT.dir() for word in re.findall(r"[A-Z][a-z]+", keyword))
    return _OTHERS | frozenset(words)
