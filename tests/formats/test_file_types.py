"""Opening what is no image, and writing whole files or none."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet import formats
from cpfnet.errors import FormatError, OutputError
from cpfnet.files import replacing
from cpfnet.image import Image, Segmentation
from tests.synthetic import write_nifti, write_photograph, write_raster

MASK = Segmentation(np.arange(20, dtype=np.uint8).reshape(4, 5))


@pytest.mark.parametrize("suffix", formats.IMAGE_SUFFIXES)
@pytest.mark.parametrize(
    ("content", "words", "fix"),
    [
        (b"", "is empty", "again"),
        (b"patient,age\n1,50\n", "is a text file", "image file itself"),
        ("Пациент 1\n".encode() * 60, "is a text file", "image file itself"),
        (b"\n<!DOCTYPE html><html><body>403</body></html>", "is an HTML page", "download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer", "git lfs pull"),
        (b"\0" * 128 + b"DICM" + b"\2\0" * 99, "is a DICOM file|cut short|holds no DICOM", "rename|export|SEG"),
        (b"%PDF-1.7\n\x93", "is a PDF document", "convert"),
        (b"PK\x03\x04\x14\x00\x93\xff", "is a ZIP archive|no readable ZIP", "convert|export"),
        (bytes(range(256)) * 4, "cannot be decoded", "copy or export"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded|PNG image", "copy or export|rename"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "cannot be decoded|gzip-compressed", "copy or export|rename"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, suffix, content, words, fix):
    path = tmp_path / f"case 1{suffix}"
    path.write_bytes(content)
    for read in (formats.read, formats.read_label, formats.read_header):
        with pytest.raises(FormatError) as caught:
            read(path)
        assert caught.value.where == str(path)
        assert any(w in caught.value.what for w in words.split("|"))
        assert any(m in caught.value.fix for m in fix.split("|"))


def test_rasters_and_volumes_mistaken_for_each_other(tmp_path):
    png, nifti = (
        write_raster(tmp_path / "a.png", np.zeros((2, 2), np.uint8)),
        write_nifti(tmp_path / "b.nii", np.zeros((1, 2, 2))),
    )
    (tmp_path / "a.nii.gz").write_bytes(png.read_bytes())
    with pytest.raises(FormatError, match=r"is a PNG image, not a NIfTI volume(.|\n)*rename it to end in \.png"):
        formats.read(tmp_path / "a.nii.gz")
    (tmp_path / "b.png").write_bytes(nifti.read_bytes())
    with pytest.raises(FormatError, match=r"uncompressed NIfTI volume, not a PNG(.|\n)*rename it to end in \.nii"):
        formats.read(tmp_path / "b.png")


def test_paths_that_lead_nowhere(tmp_path):
    write_raster(tmp_path / "case_01.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(FormatError, match=r"no such file(.|\n)*did you mean 'case_01.png'"):
        formats.read(tmp_path / "case_1.png")
    with pytest.raises(FormatError, match="no such file"):
        formats.read(tmp_path / "nowhere" / "case_1.png")
    with pytest.raises(FormatError, match="is a folder"):
        formats.read(tmp_path)
    (tmp_path / "annexed.nii.gz").symlink_to("../.git/annex/objects/key")
    with pytest.raises(FormatError, match="is a link to"):
        formats.read(tmp_path / "annexed.nii.gz")
    with pytest.raises(FormatError, match="cannot be opened"):
        formats.read(tmp_path / ("long" * 200 + ".png"))
    with pytest.raises(FormatError, match="cannot be opened"):
        formats.read("a\0.png")
    (tmp_path / "scan.mgz").write_text("MGH")
    with pytest.raises(FormatError, match=r"unknown suffix '.mgz'(.|\n)*\.png(.|\n)*\.nii\.gz"):
        formats.read(tmp_path / "scan.mgz")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a/b.nii.gz", "b"),
        ("B.NII.GZ", "B"),
        ("c.d.png", "c.d"),
        ("e.v2", "e.v2"),
        (".png", ".png"),
        ("f.tiff", "f"),
        ("g.gz", "g.gz"),
    ],
)
def test_stem(name, stem):
    assert formats.stem(name) == stem


def test_upper_case_names_and_strings(tmp_path):
    path = write_raster(tmp_path / "A.PNG", np.full((2, 3), 7, np.uint8))
    assert formats.read(str(path)).array.max() == 7
    path = write_nifti(tmp_path / "b.nii.gz", np.full((1, 2, 3), 7, np.int16)).rename(tmp_path / "B.NII.GZ")
    assert formats.read(path).array.max() == 7
    written = formats.write(MASK, str(tmp_path / "C.PNG"))
    assert written.exists()


@settings(max_examples=60, deadline=None)
@given(suffix=st.sampled_from([*formats.IMAGE_SUFFIXES]), upper=st.lists(st.booleans(), min_size=9, max_size=9))
def test_suffixes_in_any_mixture_of_capitals(tmp_path_factory, suffix, upper):
    folder = tmp_path_factory.mktemp("capitals")
    spelt = "".join(c.upper() if up else c for c, up in zip(suffix, upper, strict=False))
    plain, path = folder / f"plain{suffix}", folder / f"c0{spelt}"
    volume = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    if suffix == ".hdr":
        nibabel.save(nibabel.Nifti1Pair(volume.T, np.eye(4)), plain)
    elif suffix in formats.file_types.NIFTI_SUFFIXES:
        write_nifti(plain, volume)
    elif suffix in formats.file_types.VOLUME_SUFFIXES:
        formats.write_image(
            Image(volume[None], np.eye(4)), plain.with_name(f"whole{'.mha' if '.mh' in suffix else '.nrrd'}")
        ).rename(plain)
    elif suffix in formats.file_types.RASTER_SUFFIXES:
        write_raster(plain, np.uint8(volume[0]))
    else:
        write_photograph(plain, np.uint8(volume[0]))
    expected = formats.read(plain)
    plain.rename(path)
    if suffix == ".hdr":
        plain.with_suffix(".img").rename(path.with_suffix(".img"))
    image = formats.read(path)
    np.testing.assert_array_equal(image.array, expected.array)
    assert formats.read_header(path).shape == image.shape
    assert (formats.stem(path), formats.suffix_of(path)) == ("c0", suffix)
    if image.source.format != "dicom":
        lossy = suffix in (*formats.file_types.JPEG_SUFFIXES, ".webp", ".jp2", ".j2k")
        if not lossy:
            np.testing.assert_array_equal(formats.read_label(path).array, expected.array)
        written = formats.write(Segmentation(np.uint8(image.array[0]), image.affine, image.source), folder / "mask")
        assert written.name == "mask" + {".hdr": ".nii.gz", ".nhdr": ".nrrd", ".mhd": ".mha"}.get(
            suffix, ".png" if lossy else suffix
        )


def test_nothing_is_overwritten_unasked(tmp_path):
    path = formats.write(MASK, tmp_path / "new" / "folder" / "a.png")
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"exists already(.|\n)*overwrit"):
        formats.write(Segmentation(MASK.array + 1), path)
    assert path.read_bytes() == before
    formats.write(Segmentation(MASK.array + 1), path, overwrite=True)
    assert path.read_bytes() != before
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_the_source_is_never_replaced(tmp_path):
    image = formats.read(write_raster(tmp_path / "a.png", np.zeros((4, 5), np.uint8)))
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link"):
        with pytest.raises(OutputError, match="would replace the image"):
            formats.write(Segmentation(MASK.array, None, image.source), folder / "a", overwrite=True)
    assert formats.read(tmp_path / "a.png").array.max() == 0


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for path, advice in (
        (tmp_path / "file" / "a.png", "folder you may write to"),
        (tmp_path / "file" / "sub" / "a.nii.gz", "folder you may write to"),
        (tmp_path / ("long" * 200), "a shorter name"),
    ):
        with pytest.raises(OutputError, match=rf"cannot be written(.|\n)*{advice}"):
            formats.write(MASK, path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        formats.write(MASK, tmp_path / "folder.png", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def _as_another(code: str, *arguments: object) -> str:
    """Run in a process of its own, since limits and identities cannot be taken back."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


def test_no_permission(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o755)
    (folder / "secret.png").write_bytes(b"x")
    (folder / "secret.png").chmod(0)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    if os.geteuid() != 0:
        folder.chmod(0o555)
    out = _as_another(
        """
        import os, sys
        import numpy as np
        from cpfnet import formats
        from cpfnet.errors import CpfnetError
        from cpfnet.image import Image, Segmentation
        formats.write(Segmentation(np.zeros((2, 2), np.uint8)), sys.argv[2])  # loads what it needs
        if os.geteuid() == 0:
            os.setuid(65534)
        for act in (
            lambda: formats.write(Segmentation(np.zeros((2, 2), np.uint8)), sys.argv[1] + "/a.png"),
            lambda: formats.read(sys.argv[1] + "/secret.png"),
        ):
            try:
                act()
            except CpfnetError as error:
                print(type(error).__name__, error.what, error.fix, sep="|")
        """,
        folder,
        tmp_path / "warm.png",
    )
    assert out.splitlines() == [
        "OutputError|cannot be written: Permission denied|choose a folder you may write to, with free space",
        "FormatError|cannot be opened: Permission denied|give the path of a file that you may read",
    ]
    assert [p.name for p in folder.iterdir()] == ["secret.png"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".gif", ".nii", ".nii.gz"])
def test_full_disk_leaves_nothing_behind(tmp_path, suffix):
    out = _as_another(
        """
        import resource, sys
        import numpy as np
        from cpfnet import formats
        from cpfnet.errors import OutputError
        from cpfnet.image import Image, Segmentation
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        noise = np.random.default_rng(0).integers(0, 256, (400, 400), dtype=np.uint8)
        try:
            formats.write(Segmentation(noise), sys.argv[1])
        except OutputError as error:
            print(error)
        """,
        tmp_path / f"a{suffix}",
    )
    assert "cannot be written" in out
    assert "free space" in out
    assert not list(tmp_path.iterdir())


def test_any_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("old")

    def interrupted():
        with replacing(path, overwrite=True) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_memory_for_a_huge_claim_is_refused_kindly(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", np.zeros((300, 300, 300), np.float32))
    out = _as_another(
        """
        import resource, sys
        from cpfnet import formats
        from cpfnet.errors import FormatError
        from cpfnet.formats import nifti
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000,) * 2)
        try:
            formats.read(sys.argv[1])
        except FormatError as error:
            print(error)
        """,
        path,
    )
    assert "does not fit into memory" in out


def test_importing_formats_loads_no_library():
    out = _as_another(
        """
        import sys
        import cpfnet.formats
        print(sorted({"torch", "monai", "nibabel", "tifffile", "PIL", "scipy"} & set(sys.modules)))
        """
    )
    assert out.strip() == "[]"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for reader in (formats.read, formats.read_header, formats.read_label):
        with pytest.raises(FormatError, match="is a pipe"):
            reader(tmp_path / "a.png")
