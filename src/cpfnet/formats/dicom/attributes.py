"""Attributes of real headers: texts that may be damaged, UIDs that may be missing, and no patient data in messages."""

from __future__ import annotations

import hashlib
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pydicom.charset import convert_encodings, python_encoding

from cpfnet.text import printable


def text(header: pydicom.Dataset, keyword: str) -> str:
    """An attribute as text; "" where it is absent, empty or cannot be decoded."""
    try:
        value = header.get(keyword)
    except Exception:  # pydicom decodes on access, and raises anything on damaged values
        return ""
    return "" if value is None else printable(str(value)).strip()


def is_localizer(header: pydicom.Dataset) -> bool:
    """Is it a scout view, by its ImageType (PS3.3, C.8.2.1.1.1)?"""
    return "LOCALIZER" in text(header, "ImageType").upper()


class _Quiet:
    """Silences pydicom. Filters belong to the whole process: the first thread sets them, the last restores them."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._warnings, self._level = warnings.catch_warnings(), 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Silence what pydicom warns of and logs: values that break the rules but are readable, decoders that fail."""
        logger = logging.getLogger("pydicom")
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._level = logger.level
                logger.setLevel(logging.CRITICAL + 1)
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._warnings.__exit__(None, None, None)
                    logger.setLevel(self._level)


quiet = _Quiet()


def derived_uid(*parts: str) -> str:
    """The same UID for the same parts: ``2.25.`` and 128 bits of a hash (as UUIDs in DICOM PS3.5, annex B.2)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(chr(0).join(parts).encode(errors='surrogateescape')).digest()[:16])}"


def patient_digest(header: pydicom.Dataset) -> str:
    """A hash that tells patients apart without naming them; "" without a PatientID.

    Use it only for comparisons in memory: a list of guesses breaks it.
    """
    number = text(header, "PatientID")
    parts = number, text(header, "IssuerOfPatientID")
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest() if number else ""


def fill_in_identity(header: pydicom.Dataset, folder: Path, name: str) -> tuple[str, ...]:
    """Fill in empty UIDs and the character set, in place; returns messages about what was done.

    SOP class and instance come from the file meta. The others are derived from patient, folder and frame of reference,
    so that the slices of one folder stay together, and the same files always get the same UIDs.

    Args:
        header: of one object.
        folder: the folder of the object; for an archive, with the folder inside it.
        name: of the file.
    """
    messages = [] if all(text(header, keyword) for keyword in _IDENTITY) else _complete_uids(header, folder, name)
    declared = header.get("SpecificCharacterSet", "ASCII")
    names = [declared] if isinstance(declared, str) else list(declared or [""])
    if names != ["ASCII"] and (not any(names) or any(name and name not in python_encoding for name in names)):
        header.SpecificCharacterSet = "ISO_IR 100"
        implicit, little = header.original_encoding
        header.set_original_encoding(implicit, little, convert_encodings("ISO_IR 100"))
        state = "is empty" if not any(names) else f"has the unknown value {printable(str(names[0]))!r}"
        messages.append(f"SpecificCharacterSet {state}: texts are taken for Latin-1 (ISO_IR 100)")
    return tuple(messages)


_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def _complete_uids(header: pydicom.Dataset, folder: Path, name: str) -> list[str]:
    messages = []
    meta = getattr(header, "file_meta", None) or pydicom.Dataset()
    frame = text(header, "FrameOfReferenceUID")
    # The frame of reference distinguishes examinations; without one, only the place does.
    place = folder.name if frame else str(folder.absolute())
    study = derived_uid("study", patient_digest(header), frame, place)
    about = [text(header, keyword) for keyword in ("Modality", "SeriesNumber", "SeriesTime", "ProtocolName")]
    series = derived_uid("series", text(header, "StudyInstanceUID") or study, frame, place, *about)
    uids = {
        "taken from the file meta": {
            "SOPClassUID": text(meta, "MediaStorageSOPClassUID"),
            "SOPInstanceUID": text(meta, "MediaStorageSOPInstanceUID"),
        },
        "made from patient, folder and frame of reference": {
            "SOPInstanceUID": derived_uid("instance", series, name),
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
        },
    }
    for origin, values in uids.items():
        empty = [keyword for keyword, value in values.items() if value and not text(header, keyword)]
        for keyword in empty:
            setattr(header, keyword, values[keyword])
        if empty:
            messages.append(f"{' and '.join(empty)} empty: {origin}")
    return messages
