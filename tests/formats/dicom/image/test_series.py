"""Which series a path means: folders, lists of files, archives and references."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cpfnet import formats
from cpfnet.errors import FormatError
from cpfnet.formats.dicom import modality_of, scan
from tests.formats.dicom.written_labels import write_rtstruct
from tests.synthetic import PRIVATE, dicom_uid, write_photograph, write_raster, write_series

STORED = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)


def _refused(path) -> FormatError:
    with pytest.raises(FormatError) as caught:
        formats.read(path)
    assert not [value for value in (*PRIVATE.values(), "P-0815", "Muster", "Erika") if value in str(caught.value)]
    return caught.value


def _zip(path: Path, files: list[Path], names: list[str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, name in zip(files, names or [f"study/{file.name}" for file in files], strict=True):
            archive.write(file, name)
    return path


def test_several_series_are_listed_and_can_be_chosen(tmp_path):
    write_series(tmp_path / "a", STORED, series="one")
    write_series(tmp_path / "a", STORED[:2] + 1, series="two", modality="MR", names="mr{}.dcm")
    error = _refused(tmp_path)
    one, two = (dicom_uid("P-0815", "study", name) for name in ("one", "two"))
    assert "holds 2 image series:" in error.what
    assert f"CT, 3 × 4×5: {tmp_path / 'a' / f'series={one}'}" in error.what
    assert f"MR, 2 × 4×5: {tmp_path / 'a' / f'series={two}'}" in error.what
    for folder in (tmp_path, tmp_path / "a"):
        for uid in (two, two[-6:]):
            image = formats.read(folder / f"series={uid}")
            np.testing.assert_array_equal(image.array[0], STORED[:2] + 1)
            assert formats.exists(folder / f"series={uid}")
    assert "no image series with a UID that ends in '1.2.3'" in _refused(tmp_path / "series=1.2.3").what
    assert not formats.exists(tmp_path / "nowhere" / "series=1")
    assert _refused(tmp_path / "nowhere" / "series=1").what == "no such file"


def test_studies_are_told_apart(tmp_path):
    for study in ("first", "second"):
        write_series(tmp_path / study, STORED, study=study)
    assert "holds 2 image series:" in _refused(tmp_path).what
    found = scan(tmp_path)
    assert [series.reference for series in found.series] == [tmp_path / "first", tmp_path / "second"]
    assert len({series.study for series in found.series}) == 2
    assert len({series.patient for series in found.series}) == 1
    assert "P-0815" not in repr(found)
    assert formats.read(tmp_path / "first").shape == (3, 4, 5)


def test_files_are_the_slices_of_one_series(tmp_path):
    paths = write_series(tmp_path, STORED)
    np.testing.assert_array_equal(formats.read(paths[::-1]).array, formats.read(tmp_path).array)
    assert formats.read(paths[1]).shape == (1, 4, 5)
    other = write_series(tmp_path / "b", STORED, series="b")
    assert "holds 2 image series" in _refused([*paths, *other]).what


def test_names_do_not_matter_but_content_does(tmp_path):
    """Without suffix or preamble, among other files, hidden ones and links."""
    paths = write_series(tmp_path / "deep" / "down", STORED, names=["IM1", "1.2.840.113", "x.ima"])
    data = paths[0].read_bytes()
    dataset = pydicom.dcmread(paths[0])
    dataset.preamble = None
    del dataset.file_meta
    dataset.save_as(paths[0], implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert paths[0].read_bytes()[:2] == b"\x08\x00"
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "._IM1").write_bytes(data[:200])
    (tmp_path / "__MACOSX").mkdir()
    write_raster(tmp_path / "key.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "deep" / "nowhere").symlink_to(tmp_path / "nothing")
    image = formats.read(tmp_path)
    np.testing.assert_array_equal(image.array[0], STORED.astype(int) - 1024)


def test_objects_that_are_no_images_are_ignored(tmp_path):
    write_series(tmp_path, STORED)
    for number, (modality, sop_class) in enumerate(
        {"SR": "1.2.840.10008.5.1.4.1.1.88.11", "PR": "1.2.840.10008.5.1.4.1.1.11.1"}.items()
    ):
        (path,) = write_series(tmp_path, STORED[:1], series=modality, names=f"{number}.dcm")
        dataset = pydicom.dcmread(path)
        dataset.update({"Modality": modality, "SOPClassUID": sop_class})
        del dataset.PixelData, dataset.Rows
        dataset.save_as(path)
    dose = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2", "Modality": "RTDOSE"}
    write_series(tmp_path, STORED[:1], series="dose", names="dose.dcm", **dose)
    spectra = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.2", "Modality": "MR"}  # they have Rows and Columns
    write_series(tmp_path, STORED[:1], series="spectra", names="spectra.dcm", **spectra)
    assert formats.read(tmp_path).shape == (3, 4, 5)
    assert scan(tmp_path).others == {"SR": 1, "PR": 1, "RTDOSE": 1, "MR spectroscopy": 1}
    error = _refused(tmp_path / "dose.dcm")
    assert error.what == "holds no DICOM image, only 1 RTDOSE"


def test_localizer_series_beside_the_volume(tmp_path):
    write_series(tmp_path, STORED)
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    paths = write_series(tmp_path, STORED[:2], series="scout", names="scout{}.dcm", **scout)
    assert formats.read(tmp_path).shape == (3, 4, 5)
    assert scan(tmp_path).others == {"localizer": 2}
    assert formats.read(paths[0]).shape == (1, 4, 5)


def test_folders_without_dicom(tmp_path):
    assert _refused(tmp_path).what == "is a folder that holds no DICOM image"
    write_raster(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    assert "holds no DICOM image" in _refused(tmp_path).what


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut short"),
        (b"<!DOCTYPE html><html>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (
            b"\0" * 128 + b"DICM" + b"\x08\0\x05\0CS\xff\xff" + b"\xff" * 40,
            "cut short",
        ),
    ],
)
def test_a_damaged_file_in_a_folder_is_not_passed_over(tmp_path, content, words):
    paths = write_series(tmp_path, STORED)
    paths[2].write_bytes(content or paths[2].read_bytes()[:700])
    error = _refused(tmp_path)
    assert "1 of its DICOM files cannot be read: slice_002.dcm" in error.what
    assert words in error.what
    assert [file for file, _ in scan(tmp_path).unreadable] == [paths[2]]


def test_archives(tmp_path):
    paths = write_series(tmp_path / "a", STORED)
    archive = _zip(tmp_path / "study.zip", paths)
    image = formats.read(archive)
    np.testing.assert_array_equal(image.array, formats.read(tmp_path / "a").array)
    assert image.source.paths == (archive,)
    assert [header.InstanceNumber for header in image.source.details["headers"]] == [1, 2, 3]
    more = write_series(tmp_path / "b", STORED + 1, series="b", names="b{}.dcm")
    archive = _zip(tmp_path / "two.zip", [*paths, *more])
    uid = dicom_uid("P-0815", "study", "b")
    assert str(archive / f"series={uid}") in _refused(archive).what
    np.testing.assert_array_equal(formats.read(archive / f"series={uid}").array[0], STORED.astype(int) - 1023)
    assert formats.stem(archive) == "two"
    assert formats.exists(archive / f"series={uid}")


def test_names_in_archives_are_only_names(tmp_path):
    paths = write_series(tmp_path / "a", STORED)
    (tmp_path / "box").mkdir()
    archive = _zip(tmp_path / "box" / "x.zip", paths, ["../../evil.dcm", "/etc/evil.dcm", "a\n\x1b[31m.dcm"])
    before = sorted(tmp_path.rglob("*"))
    assert formats.read(archive).shape == (3, 4, 5)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "a" / "slice_001.dcm").unlink()
    broken = _zip(tmp_path / "y.zip", [paths[0], paths[2]] * 2, ["a\n.dcm", "b", "c", "d"])
    assert "\n" not in formats.read(broken).source.warnings[0]


def test_archives_inside_archives_are_left_alone(tmp_path):
    paths = write_series(tmp_path / "a", STORED)
    inner = _zip(tmp_path / "inner.zip", paths)
    assert "holds no DICOM image" in _refused(_zip(tmp_path / "outer.zip", [inner])).what
    shutil.rmtree(tmp_path / "a")
    assert "is a folder that holds no DICOM image" in _refused(tmp_path).what


def test_encrypted_archives(tmp_path):
    archive = _zip(tmp_path / "a.zip", write_series(tmp_path / "a", STORED))
    data = bytearray(archive.read_bytes())
    for magic, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = data.find(magic)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(magic, at + 4)
    archive.write_bytes(data)
    assert _refused(archive).what == "is encrypted"


def test_damaged_archives(tmp_path):
    archive = _zip(tmp_path / "a.zip", write_series(tmp_path / "a", STORED))
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    assert "is no readable ZIP archive" in _refused(archive).what
    damaged = bytearray(data)
    damaged[200:260] = bytes(60)
    archive.write_bytes(damaged)
    assert "cannot be read" in _refused(archive).what


def test_archives_that_would_fill_the_memory(tmp_path):
    head = write_series(tmp_path / "a", STORED)[0].read_bytes()
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.dcm", head + bytes(80 * 2**20))
    assert "expands from" in _refused(tmp_path / "bomb.zip").what


def test_deflated_objects_that_would_fill_the_memory(tmp_path):
    (path,) = write_series(tmp_path, STORED[:1], syntax=pydicom.uid.DeflatedExplicitVRLittleEndian)
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = zlib.decompress(data[start:], -zlib.MAX_WBITS) + bytes(80 * 2**20)
    path.write_bytes(data[:start] + packer.compress(body) + packer.flush())
    assert "expands from" in _refused(path).what


def test_empty_uids_and_character_sets(tmp_path):
    def edit(_, dataset):
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SpecificCharacterSet"):
            setattr(dataset, keyword, "")

    write_series(tmp_path / "a", STORED, edit=edit)
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "a")
    image, moved = formats.read(tmp_path / "a"), formats.read(tmp_path / "elsewhere")
    header = image.source.details["headers"][0]
    assert header.StudyInstanceUID.startswith("2.25.")
    assert header.SeriesInstanceUID.startswith("2.25.")
    assert header.StudyInstanceUID != header.SeriesInstanceUID
    assert header.StudyInstanceUID == moved.source.details["headers"][2].StudyInstanceUID
    assert header.SpecificCharacterSet == "ISO_IR 100"
    assert len(image.source.warnings) == 2
    assert "StudyInstanceUID and SeriesInstanceUID empty: made from" in image.source.warnings[0]
    assert "(in 3 of 3 files)" in image.source.warnings[0]
    assert "Latin-1" in image.source.warnings[1]


def test_photographs_of_one_folder_are_images_of_their_own(tmp_path):
    colour = np.zeros((4, 5, 3), np.uint8)
    paths = [
        write_photograph(tmp_path / f"{i}.dcm", colour + i, series="all", SOPInstanceUID=f"1.2.{i}") for i in range(2)
    ]
    assert [series.reference for series in scan(tmp_path).series] == paths
    assert (formats.read(paths[1]).array == 1).all()
    assert str(paths[0]) in _refused(tmp_path).what


def test_what_changes_on_disk_is_read_anew(tmp_path):
    paths = write_series(tmp_path, STORED)
    assert len(scan(tmp_path).series) == 1
    write_series(tmp_path, STORED[:1], series="other", names=[paths[0].name])
    assert len(scan(tmp_path).series) == 2
    paths[0].unlink()
    assert scan(tmp_path).series[0].count == 2


@pytest.mark.parametrize("change", ["file", "replaced", "removed", "folder"])
def test_what_changes_beside_a_series_is_seen_when_it_is_named_again(tmp_path, change):
    place = tmp_path / "study"
    first, _ = (write_series(place / name, STORED, series=name, names=f"{name}{{}}.dcm") for name in ("one", "two"))
    (place / "empty").mkdir()
    for folder in (place / "one", place / "two", place / "empty", place):
        os.utime(folder, (1, 1))  # long settled
    reference = place / f"series={dicom_uid('P-0815', 'study', 'one')}"
    assert formats.read(reference).shape == (3, 4, 5) == formats.read(reference).shape
    if change == "replaced":  # in place: no folder changes
        dataset = pydicom.dcmread(first[0])
        dataset.PixelData, dataset.PatientComments = bytes(40), "longer"
        dataset.save_as(first[0])
        assert (formats.read(reference).array[0, 0] == -1024).all()
    elif change == "removed":
        first[0].unlink()
        assert formats.read(reference).shape == (2, 4, 5)
    else:
        more = write_series(tmp_path / "more", np.tile(STORED, (2, 1, 1)), series="one")[3:]
        for index, path in enumerate(more):
            path.rename(place / ("one" if change == "file" else "empty") / f"more{index}.dcm")
        assert formats.read(reference).shape == (6, 4, 5)


def test_a_structure_set_cut_short_is_not_read_without_its_last_contours(tmp_path):
    image = formats.read(write_series(tmp_path / "series", STORED)[0].parent)
    ring = np.array([[0.0, 0, 0], [3, 0, 0], [3, 2, 0]])
    path = write_rtstruct(tmp_path / "label.dcm", next((tmp_path / "series").iterdir()), [("a", [ring]), ("b", [ring])])
    assert formats.read_label(path, image).array.any()
    whole = path.read_bytes()
    for length in range(400, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError) as caught:
            formats.read_label(path, image)
        between = caught.value.what.startswith(("holds no DICOM image", "has no "))  # cut where an attribute ends
        assert between or caught.value.what == "is cut short", length


def test_an_archive_with_a_nameless_file(tmp_path):
    archive = _zip(tmp_path / "a.zip", write_series(tmp_path / "a", STORED), ["a", "b", "c"])
    data = archive.read_bytes()
    at = data.rindex(b"PK\x01\x02")
    archive.write_bytes(data[: at + 46] + b"\0" + data[at + 47 :])
    assert _refused(archive).where == str(archive)


def test_pydicom_is_loaded_for_dicom_alone(tmp_path):
    picture = write_raster(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    script = f"from cpfnet import formats; formats.read({str(picture)!r}); import sys; print('pydicom' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_damaged_bytes_give_an_image_or_a_format_error(tmp_path):
    """Flipped bits, zeroed and missing bytes, in headers and pixels."""
    syntaxes = [pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.RLELossless]
    seeds = [write_series(tmp_path / str(i), STORED, syntax=s)[0].read_bytes() for i, s in enumerate(syntaxes)]
    seeds.append(_zip(tmp_path / "a.zip", [tmp_path / "0" / "slice_000.dcm"]).read_bytes())
    rng = np.random.default_rng(3)
    outcomes = set()
    for number in range(300):
        data = bytearray(seeds[number % len(seeds)])
        at = int(rng.integers(100, len(data)))
        if number % 3 == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif number % 3 == 1:
            data[at : at + 8] = bytes(8)
        else:
            del data[at:]
        path = tmp_path / f"mutant{number}"
        path.write_bytes(data)
        try:
            outcomes.add(formats.read(path).shape)
        except FormatError as error:
            outcomes.add("refused" if error.where else "refused without saying where")
    assert outcomes >= {(1, 4, 5), "refused"}
    assert "refused without saying where" not in outcomes


@pytest.mark.parametrize(
    ("word", "modality"),
    [("CT", "ct"), ("PT", "pet"), ("SM", "microscopy"), ("ES", "endoscopy"), ("OP", "fundus"), ("NM", "other")],
)
def test_modalities_have_the_plans_words(word: str, modality: str) -> None:
    assert modality_of(word) == modality
