"""The patient and study of a written object: taken over from its images, if the standard allows the values.

A value that breaks the rules of its kind is left empty, never cut or corrected: half an identifier belongs
to somebody else.
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
"""Attributes of the modules Patient and General Study that must be present and may be empty (type 2; DICOM PS3.3,
C.7.1.1 and C.7.2.1): without them, no archive files the result with its images."""


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


def allowed_value(header: Dataset, keyword: str) -> str | None:
    """An attribute as text; "" if it is absent or empty, None if the standard does not allow its value."""
    try:
        stored = header.get(keyword)
        value = "" if stored is None else str(stored).strip(" \0")
    except Exception:  # pydicom decodes on access, and raises anything on damaged values
        return None
    if isinstance(stored, MultiValue) or any(c == "\ufffd" or unicodedata.category(c) in ("Cc", "Cs") for c in value):
        return None
    return value if not value or _ALLOWED[dictionary_VR(keyword)](value) else None


def identity_warning(header: Dataset) -> str | None:
    """A message about attributes that will be left empty, without their values."""
    invalid = [keyword for keyword in IDENTITY if allowed_value(header, keyword) is None]
    if not invalid:
        return None
    return f"DICOM does not allow what is in {', '.join(invalid)}: left empty in DICOM that is written"
