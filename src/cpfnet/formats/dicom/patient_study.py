"""Who and which study a written object belongs to: taken over from its images, as far as the standard allows their values.

A value that breaks the rules of its kind is left empty, never cut or fixed: half an identifier is that of somebody else.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Callable

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

IDENTITY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Attributes of the modules Patient and General Study that must be there and may be empty (type 2; DICOM PS3.3, C.7.1.1 and C.7.2.1):
without them, no archive files the result beside its images."""


def _is_date(value: str) -> bool:
    try:
        return bool(re.fullmatch("[0-9]{8}", value) and datetime.datetime.strptime(value, "%Y%m%d"))
    except ValueError:
        return False


def _is_name(value: str) -> bool:
    groups = value.split("=")
    return len(groups) <= 3 and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)


_ALLOWED: dict[str, Callable[[str], bool]] = {  # DICOM PS3.5, section 6.2
    "LO": lambda value: len(value) <= 64,
    "SH": lambda value: len(value) <= 16,
    "PN": _is_name,
    "DA": _is_date,
    "TM": lambda value: bool(re.fullmatch(r"([01][0-9]|2[0-3])([0-5][0-9](([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?", value)),
    "CS": lambda value: value in ("M", "F", "O"),  # PatientSex, the only one
}


def allowed(header: Dataset, keyword: str) -> str | None:
    """An attribute as text, "" where it is absent or empty, None where the standard does not allow what it holds."""
    try:
        found = header.get(keyword)
        value = "" if found is None else str(found).strip(" \0")
    except Exception:  # pydicom decodes on access, and raises anything on damaged values
        return None
    if isinstance(found, MultiValue) or any(c == "\ufffd" or unicodedata.category(c) in ("Cc", "Cs") for c in value):
        return None
    return value if not value or _ALLOWED[dictionary_VR(keyword)](value) else None


def unidentified(header: Dataset) -> str | None:
    """The note on attributes that will stay empty; never what they hold."""
    left = [keyword for keyword in IDENTITY if allowed(header, keyword) is None]
    if not left:
        return None
    return f"DICOM does not allow what is in {', '.join(left)}: left empty in DICOM that is written"
