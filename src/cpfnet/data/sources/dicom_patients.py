"""Whose images these are, where nobody says it but the DICOM headers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from cpfnet import formats
from cpfnet.data.case import Case
from cpfnet.data.sources.folders import LOOKED_INTO
from cpfnet.data.sources.pseudonyms import patient_of
from cpfnet.errors import FormatError
from cpfnet.formats.file_types import is_reference


def group_by_patient(cases: Iterable[Case]) -> tuple[Case, ...]:
    """Give cases whose headers have the same PatientID one patient; a patient that the data set names stays."""
    cases = tuple(cases)
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for case in cases:
        if case.patient == case.id and formats.is_dicom(case.images[0]):
            try:
                patient, study = _patient_and_study(case.images[0])
            except (FormatError, OSError):  # reading will say so
                continue
            if patient:
                groups[patient].append((case.id, study))
    shared = [group for group in groups.values() if len(group) > 1]
    patients = {case: patient_of(study for _, study in group) for group in shared for case, _ in group}
    return tuple(replace(case, patient=patients.get(case.id, case.patient)) for case in cases)


def _patient_and_study(path: Path) -> tuple[str, str]:
    """Digest of the PatientID, "" where it is empty, and StudyInstanceUID.

    They are those of a reference, or of the first object at ``path``.
    """
    from cpfnet.formats.dicom import one_series
    from cpfnet.formats.dicom.attributes import patient_digest, text
    from cpfnet.formats.dicom.image.datasets import Archives, locations, read_object

    if is_reference(path):
        series, _ = one_series([path])
        return series.patient, series.study
    with Archives() as archives:
        for location in islice(locations([path], archives), LOOKED_INTO):
            if (found := read_object(location, archives)) is not None:
                return patient_digest(found.header), text(found.header, "StudyInstanceUID")
    return "", ""
