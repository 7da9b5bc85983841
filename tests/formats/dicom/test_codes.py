"""Codes by class name, judged by pydicom's dictionary of the standard."""

from __future__ import annotations

import pydicom.sr.codedict
import pytest

from cpfnet.formats.dicom import codes

TYPES = {code.value: code for table in (codes._ABNORMAL, codes._NORMAL) for _, code in table.values()}
CATEGORIES = {code.value: code for table in (codes._ABNORMAL, codes._NORMAL) for code, _ in table.values()}


def test_every_code_means_what_it_says() -> None:
    standard: dict[str, set[str]] = {}
    concepts = pydicom.sr.codedict.codes.SCT
    for keyword in concepts.dir():
        concept = getattr(concepts, keyword)
        standard.setdefault(concept.value, set()).add(concept.meaning.casefold())
    assert len(TYPES) > 100
    for code in (*TYPES.values(), *CATEGORIES.values()):
        assert code.scheme == "SCT"
        assert code.meaning.casefold() in standard[code.value]


def test_categories_are_those_of_the_standard() -> None:
    group = pydicom.sr.codedict.codes.cid7150
    known = {getattr(group, keyword).value for keyword in group.dir()}
    assert set(CATEGORIES) <= known


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("liver", "Liver"),
        ("Kidney_L", "Kidney"),
        ("leftKidneys", "Kidney"),
        ("kidney_right", "Kidney"),
        ("GTV-1", "Neoplasm"),
        ("GTVp1", "Neoplasm"),
        ("liver_tumour", "Neoplasm"),
        ("skin-lesion", "Skin lesion"),
        ("Anterior_hippocampus", "Hippocampus"),
        ("vessel", "Blood Vessel"),
        ("hepatic vessels", "Blood Vessel"),
        ("lung_lower_lobe_left", "Lower lobe of lung"),
        ("vertebrae_L1", "Vertebra"),
        ("urinary_bladder", "Bladder"),
        ("gall bladder", "Gallbladder"),
        ("optic disc", "Optic nerve head"),
        ("无名", "Tissue"),
        ("label 3", "Tissue"),
        ("", "Tissue"),
    ],
)
def test_common_names(name: str, meaning: str) -> None:
    assert codes.code_for(name)[1].meaning == meaning


def test_categories_follow_the_type() -> None:
    assert codes.code_for("liver")[0] == codes.ANATOMY
    assert codes.code_for("GTV-1")[0] == codes.CHANGE
    assert codes.code_for("fat")[0] == codes.TISSUE
    assert codes.code_for("csf")[0] == codes.SUBSTANCE
