"""From stored pixels to values, against GDCM and by hand: bits, rescaling, inversion, padding, colours, codecs."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.pixels import convert_color_space

from cpfnet import formats
from cpfnet.errors import FormatError
from tests.synthetic import phantom, write_multiframe, write_photograph, write_series

RNG = np.random.default_rng(7)


def _simpleitk(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


@pytest.mark.parametrize(
    ("dtype", "stored", "low", "high"),
    [
        ("u1", 8, 0, 255),
        ("i1", 8, -128, 127),
        ("u2", 12, 0, 4095),
        ("i2", 12, -2048, 2047),
        ("u2", 16, 0, 65535),
        ("i2", 16, -32768, 32767),
        ("u2", 10, 0, 1023),
        ("i4", 32, -(2**31), 2**31 - 1),
        ("u4", 32, 0, 2**32 - 1),
    ],
)
def test_stored_integers(tmp_path, dtype, stored, low, high):
    array = RNG.integers(low, high, (2, 5, 6), dtype=dtype, endpoint=True)
    array[0, 0, :2] = low, high
    write_series(tmp_path, array, modality="MR", BitsStored=stored, HighBit=stored - 1)
    image = formats.read(tmp_path)
    np.testing.assert_array_equal(image.array[0], array)
    assert image.array.dtype == np.dtype(dtype) == formats.read_header(tmp_path).dtype
    np.testing.assert_array_equal(image.array[0, :1], _simpleitk(tmp_path / "slice_000.dcm"))


@pytest.mark.parametrize("signed", [False, True])
def test_unused_bits_hold_anything(tmp_path, signed):
    """PS3.5, 8.1.1: overlays and rubbish may stand in the bits above the stored ones."""
    low, high = (-2048, 2048) if signed else (0, 4096)
    values = RNG.integers(low, high, (2, 5, 6))
    rubbish = RNG.integers(0, 16, values.shape) << 12
    stored = ((values & 0x0FFF) | rubbish).astype(np.uint16)
    array = stored.view(np.int16) if signed else stored
    write_series(tmp_path, array, modality="MR", BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(formats.read(tmp_path).array[0], values)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("low_bits", [0, 3])
def test_a_high_bit_above_the_stored_ones(tmp_path, signed, low_bits):
    values = RNG.integers(-2048 if signed else 0, 2048, (2, 5, 6))
    array = ((values << 4) | low_bits).astype(np.int16 if signed else np.uint16)
    write_series(tmp_path, array, modality="MR", BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(formats.read(tmp_path).array[0], values)


@pytest.mark.parametrize("signed", [False, True])
def test_a_high_bit_in_run_lengths(tmp_path, signed):
    """RLE packs the bytes as they are (PS3.5, annex G)."""
    values = RNG.integers(-2048 if signed else 0, 2048, (2, 5, 6))
    array = ((values << 4) | 3).astype(np.int16 if signed else np.uint16)
    for path in write_series(tmp_path, array, modality="MR"):
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless)
        dataset.BitsStored, dataset.HighBit = 12, 15
        dataset.save_as(path)
    np.testing.assert_array_equal(formats.read(tmp_path).array[0], values)


def test_a_high_bit_in_codestreams_is_refused(tmp_path):
    for path in write_series(tmp_path, _GREY << 4, modality="MR", syntax=pydicom.uid.JPEGLSLossless):
        dataset = pydicom.dcmread(path)
        dataset.BitsStored, dataset.HighBit = 12, 15
        dataset.save_as(path)
    for read in (formats.read_header, formats.read):
        with pytest.raises(FormatError, match="HighBit 15 and BitsStored 12"):
            read(tmp_path)


def test_slope_and_intercept_of_every_slice(tmp_path):
    array = RNG.integers(0, 4096, (3, 5, 6), dtype=np.uint16)
    slopes = [1.0, 0.5, 2.25]
    write_series(
        tmp_path,
        array,
        modality="PT",
        edit=lambda i, d: d.update({"RescaleSlope": slopes[i], "RescaleIntercept": -i}),
    )
    image = formats.read(tmp_path)
    expected = array * np.array(slopes)[:, None, None] - np.arange(3)[:, None, None]
    np.testing.assert_allclose(image.array[0], expected, rtol=1e-6)
    assert image.array.dtype == np.float32 == formats.read_header(tmp_path).dtype
    assert (image.modality, image.source.details["unit"]) == ("pet", "BQML")
    for number in range(3):
        np.testing.assert_allclose(
            image.array[0, number], _simpleitk(tmp_path / f"slice_{number:03d}.dcm")[0], rtol=1e-6
        )


@pytest.mark.parametrize(
    ("dtype", "stored", "slope", "intercept", "expected"),
    [
        ("u2", 12, 1, -1024, "int16"),
        ("i2", 16, 1, -1024, "int32"),
        ("u2", 16, 1, -1024, "int32"),
        ("u2", 12, 2, 0, "int16"),
        ("u2", 12, -1, 0, "int16"),
        ("u4", 32, 2, 0, "float32"),
        ("u2", 12, 1.5, 0, "float32"),
        ("u2", 12, 1, 0, "uint16"),
    ],
)
def test_integers_stay_integers_where_they_fit(tmp_path, dtype, stored, slope, intercept, expected):
    array = RNG.integers(0, 2 ** min(stored, 15), (2, 5, 6), dtype=dtype)
    more = {"RescaleSlope": slope, "RescaleIntercept": intercept, "BitsStored": stored, "HighBit": stored - 1}
    write_series(tmp_path, array, **more)
    image = formats.read(tmp_path)
    assert image.array.dtype == expected == formats.read_header(tmp_path).dtype
    np.testing.assert_array_equal(image.array[0], array * np.float64(slope) + intercept)


def test_ct_without_rescaling_is_said(tmp_path):
    write_series(tmp_path, np.zeros((2, 5, 6), np.int16), RescaleSlope=None, RescaleIntercept=None)
    assert "taken for HU" in formats.read(tmp_path).source.warnings[0]


@pytest.mark.parametrize("signed", [False, True])
def test_monochrome1_is_turned_before_rescaling(tmp_path, signed):
    low, high = (-2048, 2047) if signed else (0, 4095)
    array = RNG.integers(low, high, (1, 5, 6), dtype=np.int16 if signed else np.uint16)
    more = {"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1"}
    (path,) = write_series(tmp_path, array, modality="MR", **more, RescaleSlope=1, RescaleIntercept=-1024)
    image = formats.read(path)
    np.testing.assert_array_equal(image.array[0], low + high - array.astype(int) - 1024)
    if not signed:
        np.testing.assert_array_equal(image.array[0], _simpleitk(path))


def test_monochrome1_leaves_hounsfield_units_alone(tmp_path):
    """PS3.3, C.7.6.3.1.2: it says what to show white; HU are what the modality LUT gives (C.11.1)."""
    array = RNG.integers(0, 4095, (2, 5, 6), dtype=np.uint16)
    write_series(tmp_path, array, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    image = formats.read(tmp_path)
    np.testing.assert_array_equal(image.array[0], array.astype(int) - 1024)
    assert "MONOCHROME1" in image.source.warnings[0]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_tables_of_values(tmp_path, photometric):
    """PS3.3, C.11.1.1.1: values below the first entry, and above the last, are those."""
    array = RNG.integers(0, 16, (2, 5, 6), dtype=np.uint16)
    table = RNG.integers(0, 60000, 8).astype(np.uint16)

    def edit(_, dataset):
        item = pydicom.Dataset()
        item.LUTDescriptor, item.ModalityLUTType, item.LUTData = [8, 4, 16], "US", table.tolist()
        item["LUTData"].VR = item["LUTDescriptor"].VR = "US"
        dataset.ModalityLUTSequence = [item]
        del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType

    more = {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}
    write_series(tmp_path, array, modality="MR", edit=edit, PhotometricInterpretation=photometric, **more)
    shown = table[np.clip(array.astype(int) - 4, 0, 7)].astype(float)
    image = formats.read(tmp_path)
    np.testing.assert_array_equal(image.array[0], shown if photometric == "MONOCHROME2" else 65535 - shown)
    assert image.array.dtype == np.float32 == formats.read_header(tmp_path).dtype


def test_colours_beyond_the_greys_are_said(tmp_path):
    """Supplemental palette: PS3.3, C.7.6.23."""
    array = RNG.integers(0, 99, (2, 5, 6), dtype=np.uint16)
    write_series(tmp_path, array, modality="MR", PixelPresentation="COLOR")
    image = formats.read(tmp_path)
    np.testing.assert_array_equal(image.array[0], array)
    assert "PixelPresentation is COLOR" in image.source.warnings[0]


@pytest.mark.parametrize(
    ("attributes", "padding"),
    [
        ({"PixelPaddingValue": -2000}, [-2000]),
        ({"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1998}, [-2000, -1999, -1998]),
        ({"PixelPaddingValue": -1998, "PixelPaddingRangeLimit": -2000}, [-2000, -1999, -1998]),
    ],
)
def test_padding_becomes_the_smallest_measured_value(tmp_path, attributes, padding):
    array = RNG.integers(-900, 1000, (3, 5, 6), dtype=np.int16)
    array[1] = RNG.choice(padding, (5, 6))  # one slice holds nothing else
    array[2, :2] = RNG.choice(padding, (2, 6))
    array[0, 0, 0] = -950
    write_series(tmp_path, array, **attributes)
    expected = np.where(np.isin(array, padding), -950, array).astype(int) - 1024
    np.testing.assert_array_equal(formats.read(tmp_path).array[0], expected)


def test_padding_written_as_unsigned_bits(tmp_path):
    array = np.array([[[-2000, 5, 6], [7, 8, 9]]], dtype=np.int16)

    def edit(_, dataset):
        dataset["PixelPaddingValue"] = pydicom.DataElement(0x00280120, "US", 63536)

    write_series(tmp_path, array, edit=edit, RescaleIntercept=0)
    np.testing.assert_array_equal(formats.read(tmp_path).array[0, 0], [[5, 5, 6], [7, 8, 9]])


def test_an_image_of_padding_alone_stays_as_it_is(tmp_path):
    write_series(tmp_path, np.full((2, 3, 4), -2000, np.int16), PixelPaddingValue=-2000)
    assert (formats.read(tmp_path).array == -3024).all()


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("planar", [0, 1])
def test_colours(tmp_path, photometric, planar):
    rgb = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stored = convert_color_space(rgb, "RGB", photometric) if photometric != "RGB" else rgb
    attributes = {"PhotometricInterpretation": photometric, "PlanarConfiguration": planar}
    path = write_photograph(tmp_path / "a.dcm", stored, modality="US", **attributes)
    if planar:
        dataset = pydicom.dcmread(path)
        dataset.PixelData = stored.transpose(2, 0, 1).tobytes()
        dataset.save_as(path)
    image = formats.read(path)
    assert (image.modality, image.array.dtype, image.channels) == ("ultrasound", np.uint8, ("red", "green", "blue"))
    # Each conversion between the colour spaces rounds.
    np.testing.assert_allclose(image.array.astype(int), rgb.transpose(2, 0, 1), atol=0 if photometric == "RGB" else 2)
    assert formats.read_header(path).channels == image.channels


def test_subsampled_colours(tmp_path):
    rgb = np.repeat(RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8), 2, axis=1)
    y, b, r = convert_color_space(rgb, "RGB", "YBR_FULL").transpose(2, 0, 1).reshape(3, -1)
    path = write_photograph(tmp_path / "a.dcm", rgb, modality="US", PhotometricInterpretation="YBR_FULL_422")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = np.stack([y[::2], y[1::2], b[::2], r[::2]], axis=-1).tobytes()
    dataset.save_as(path)
    np.testing.assert_allclose(formats.read(path).array.astype(int), rgb.transpose(2, 0, 1), atol=2)


@pytest.mark.parametrize(("bits", "scale"), [(8, 1), (16, 257), (16, 1)])
def test_palettes(tmp_path, bits, scale):
    """Tables of 16 bits hold 16-bit entries, or, by a common mistake, 8-bit ones."""
    indices = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
    tables = RNG.integers(0, 256, (3, 256)).astype(np.uint16)
    attributes: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        entries = (table * scale).astype("<u2" if bits == 16 else "u1").tobytes()
        attributes[f"{name}PaletteColorLookupTableData"] = entries
    path = write_photograph(tmp_path / "a.dcm", indices, modality="US", **attributes)
    np.testing.assert_array_equal(formats.read(path).array, tables[:, indices])


def test_dark_pictures_of_16_bit_palettes(tmp_path):
    """Whether a table holds 16-bit entries is told by the table, not by the pixels."""
    attributes: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    table = np.array([0, 200, 300, 65535], "<u2")
    for name in ("Red", "Green", "Blue"):
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        attributes[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    path = write_photograph(tmp_path / "a.dcm", np.array([[0, 1], [1, 0]], np.uint8), modality="US", **attributes)
    assert (formats.read(path).array == 0).all()


def test_palettes_in_segments(tmp_path):
    """PS3.3, C.7.9.2: a discrete segment of 2 entries, a linear one to 202 in 100 steps."""
    segments = np.array([0, 2, 0, 2, 1, 100, 202], "<u2")
    attributes: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [102, 0, 16]
        attributes[f"Segmented{name}PaletteColorLookupTableData"] = segments.tobytes()
    pixels = np.arange(102, dtype=np.uint8).reshape(6, 17)
    path = write_photograph(tmp_path / "a.dcm", pixels, modality="US", **attributes)
    np.testing.assert_array_equal(formats.read(path).array, np.stack([2 * pixels] * 3))


def test_a_volume_of_colours(tmp_path):
    array = RNG.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    write_series(tmp_path, array, modality="OT")
    image = formats.read(tmp_path)
    np.testing.assert_array_equal(image.array, np.moveaxis(array, -1, 0))
    assert image.affine is not None


_GREY = phantom((8, 40, 48))[0].astype(np.uint16)[2:4] + RNG.integers(0, 90, (2, 40, 48)).astype(np.uint16)


@pytest.mark.parametrize(
    "syntax",
    [
        pydicom.uid.ImplicitVRLittleEndian,
        pydicom.uid.DeflatedExplicitVRLittleEndian,
        pydicom.uid.RLELossless,
        pydicom.uid.JPEGLSLossless,
        pydicom.uid.JPEG2000Lossless,
    ],
)
@pytest.mark.parametrize("multiframe", [False, True])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_lossless_transfer_syntaxes(tmp_path, syntax, multiframe, dtype):
    array = (_GREY.astype(np.int32) - (700 if dtype == np.int16 else 0)).astype(dtype)
    if multiframe:
        write_multiframe(tmp_path / "a.dcm", array, modality="MR", order=[1, 0], syntax=syntax)
    else:
        write_series(tmp_path, array, modality="MR", syntax=syntax)
    np.testing.assert_array_equal(formats.read(tmp_path).array[0], array)


def _converted(tool: str, *options: str, path: Path) -> Path:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    out = path.with_name("compressed.dcm")
    subprocess.run([tool, *options, str(path), str(out)], check=True, capture_output=True)
    path.unlink()
    return out


@pytest.mark.parametrize(
    ("tool", "options", "syntax"),
    [
        ("dcmcjpeg", ["+e1"], pydicom.uid.JPEGLosslessSV1),
        ("dcmcjpeg", ["+el"], pydicom.uid.JPEGLossless),
        ("gdcmconv", ["--jpeg"], pydicom.uid.JPEGLosslessSV1),
        ("gdcmconv", ["--jpegls"], pydicom.uid.JPEGLSLossless),
        ("gdcmconv", ["--j2k"], pydicom.uid.JPEG2000Lossless),
        ("dcmcrle", [], pydicom.uid.RLELossless),
        ("dcmconv", ["+td"], pydicom.uid.DeflatedExplicitVRLittleEndian),
        ("dcmconv", ["+tb"], pydicom.uid.ExplicitVRBigEndian),
    ],
)
def test_what_other_tools_compress(tmp_path, tool, options, syntax):
    (path,) = write_series(tmp_path, _GREY[:1], BitsStored=12, HighBit=11)
    path = _converted(tool, *options, path=path)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(formats.read(path).array[0], _GREY[:1].astype(int) - 1024)


@pytest.mark.parametrize("channels", [1, 3])
def test_lossy_jpeg(tmp_path, channels):
    smooth = np.add.outer(np.arange(40), np.arange(48)).astype(np.uint8)
    array = smooth if channels == 1 else np.stack([smooth, 200 - smooth, smooth // 2], axis=-1)
    path = write_photograph(tmp_path / "a.dcm", array)
    path = _converted("dcmcjpeg", "+eb", "+q", "100", path=path)
    image = formats.read(path)
    expected = array[None] if channels == 1 else np.moveaxis(array, -1, 0)
    np.testing.assert_allclose(image.array.astype(int), expected, atol=4)


def test_12_bit_jpeg_extended_says_what_to_do(tmp_path):
    (path,) = write_series(tmp_path, _GREY[:1], BitsStored=12, HighBit=11)
    path = _converted("dcmcjpeg", "+ee", path=path)
    with pytest.raises(FormatError, match=r"12-bit JPEG Extended(.|\n)*dcmdjpeg"):
        formats.read(path)


def test_a_missing_plug_in_is_named(tmp_path):
    """In a process of its own, where the decoders cannot be imported."""
    write_series(tmp_path, _GREY, modality="MR", syntax=pydicom.uid.JPEGLSLossless)
    script = f"""
        import sys
        for name in ("gdcm", "jpeg_ls", "pylibjpeg", "libjpeg"):
            sys.modules[name] = None
        from cpfnet import formats
        from cpfnet.errors import FormatError
        for read in (formats.read_header, formats.read):
            try:
                read({str(tmp_path)!r})
            except FormatError as error:
                print(error)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert run.stdout.count("is compressed (JPEG-LS Lossless Image Compression)") == 2
    assert "pyjpegls" in run.stdout
    assert run.stdout.count("pip install 'cpfnet[dicom]'") == 2
    assert run.stderr == ""


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"Rows": 65535, "Columns": 65535}, "promises 1 × 65535×65535 pixels"),
        ({"BitsStored": 17}, "do not fit together"),
        ({"HighBit": 16}, "do not fit together"),
        ({"BitsAllocated": 12, "BitsStored": 12}, "do not fit together"),
        ({"SamplesPerPixel": 3}, "PhotometricInterpretation 'MONOCHROME2' with 3 samples"),
        ({"SamplesPerPixel": 4}, "with 4 samples"),
        ({"PhotometricInterpretation": "CMYK"}, "PhotometricInterpretation 'CMYK'"),
        ({"BitsAllocated": None}, "has no BitsAllocated"),
    ],
)
def test_lying_headers(tmp_path, attributes, words):
    write_series(tmp_path, np.zeros((1, 5, 6), np.uint16), **attributes)
    with pytest.raises(FormatError) as caught:
        formats.read(tmp_path)
    assert words in caught.value.what
    assert "slice_000.dcm" in caught.value.what


@pytest.mark.parametrize("syntax", [pydicom.uid.JPEG2000Lossless, pydicom.uid.JPEGLSLossless, pydicom.uid.RLELossless])
def test_compressed_images_of_another_size(tmp_path, syntax):
    (path,) = write_series(tmp_path, _GREY[:1], syntax=syntax)
    dataset = pydicom.dcmread(path)
    dataset.Rows = 41
    dataset.save_as(path)
    with pytest.raises(FormatError, match=r"slice_000\.dcm"):
        formats.read(path)


@pytest.mark.parametrize(
    "syntax", [pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.JPEG2000Lossless, pydicom.uid.RLELossless]
)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_truncated_files(tmp_path, syntax, share, capfd):
    (path,) = write_series(tmp_path, _GREY[:1], syntax=syntax)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(FormatError):
        formats.read(path)
    assert capfd.readouterr().err == ""


def test_pixels_that_are_not_there(tmp_path):
    (path,) = write_series(
        tmp_path, np.zeros((1, 2, 2), np.uint8), edit=lambda _, d: d.update({"ImageComments": "x" * 99})
    )
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(FormatError, match="has no pixel data"):
        formats.read(path)


def test_films_of_other_transfer_syntaxes(tmp_path):
    (path,) = write_series(tmp_path, _GREY[:1], syntax=pydicom.uid.JPEG2000Lossless)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG4HP41
    dataset.save_as(path)
    with pytest.raises(FormatError, match=r"transfer syntax MPEG-4(.|\n)*export it uncompressed"):
        formats.read(path)


@pytest.mark.parametrize("damage", ["marker", "JFIF", "Adobe", "size", "depth"])
def test_damaged_jpeg_headers_never_reach_the_decoder(tmp_path, damage):
    """Of these GDCM takes the whole process down."""
    (path,) = write_series(tmp_path, _GREY[:1], BitsStored=12, HighBit=11)
    path = _converted("dcmcjpeg", "+e1", path=path)
    data = bytearray(path.read_bytes())
    start, frame = data.index(b"\xff\xd8\xff"), data.index(b"\xff\xc3")
    if damage == "marker":
        data[frame - 1 : frame - 1] = b"\0" * 2
        del data[-2:]
    elif damage == "JFIF":
        data[data.index(b"JFIF\0", start) + 5] = 9
    elif damage == "Adobe":
        data[start + 2 : frame] = (
            b"\xff\xee" + (frame - start - 4).to_bytes(2, "big") + b"Adobe" + b"\x07" * (frame - start - 11)
        )
    else:
        data[frame + (4 if damage == "depth" else 6)] += 8
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"compressed\.dcm"):
        formats.read(path)


def test_rows_that_the_header_does_not_know_are_not_lost(tmp_path):
    paths = write_series(tmp_path, np.zeros((3, 6, 5), np.int16), edit=lambda index, header: setattr(header, "Rows", 5))
    with pytest.raises(FormatError, match="promises 1 × 5×5 pixels, 50 bytes, and holds 60"):
        formats.read(paths[0].parent)


def test_floating_point_pixels_are_refused(tmp_path):
    def edit(index, dataset):
        dataset.FloatPixelData = np.zeros(dataset.Rows * dataset.Columns, np.float32).tobytes()

    (path,) = write_series(tmp_path, np.zeros((1, 8, 8), np.int16), edit=edit)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(FormatError, match="floating-point pixels"):
        formats.read(path)


@pytest.mark.filterwarnings("ignore:The value length")  # of the writer
def test_threads_that_read_leave_warnings_as_they_were(tmp_path):
    write_series(tmp_path, np.zeros((3, 8, 8), np.int16), edit=lambda i, d: d.update({"PatientID": "x" * 100}))
    filters, level = list(warnings.filters), logging.getLogger("pydicom").level
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("always")
        list(pool.map(lambda _: formats.read(tmp_path), range(40)))
    assert not caught
    assert warnings.filters == filters
    assert logging.getLogger("pydicom").level == level
