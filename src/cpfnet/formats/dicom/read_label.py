"""Which object a label path means, and reading it."""

from __future__ import annotations

from pathlib import Path

from pydicom.uid import HTJ2K, JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from cpfnet.errors import CpfnetError, FormatError, redacted_message
from cpfnet.formats.dicom.attributes import quiet, text
from cpfnet.formats.dicom.image.datasets import Archives, DicomObject, locations, read_object
from cpfnet.formats.dicom.image.read import read
from cpfnet.formats.dicom.image.transfer_syntax import syntax_of
from cpfnet.formats.dicom.referenced_images import KINDS, structure_names
from cpfnet.formats.dicom.rtstruct import read as rtstruct
from cpfnet.formats.dicom.seg import read as seg
from cpfnet.formats.file_types import SERIES, Header, check_readable, is_reference
from cpfnet.formats.overlap_map import overlaid, select_structures
from cpfnet.image import Image, Source
from cpfnet.planning import Labels
from cpfnet.text import natural

_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
_EITHER = (JPEG2000, HTJ2K)
"""Transfer syntaxes that change values, and those that may."""


def labels_at(path: Path, archives: Archives) -> list[DicomObject]:
    """The segmentations and structure sets that ``path`` means; none where it holds images alone.

    Raises:
        FormatError: it holds neither.
    """
    uid = path.name.removeprefix(SERIES) if is_reference(path) else ""
    place = path.parent if uid else path
    if not place.is_dir():
        check_readable(place)
    objects = [item for location in locations([place], archives) if (item := read_object(location, archives))]
    labels = [item for item in objects if text(item.header, "SOPClassUID") in KINDS]
    labels = [item for item in labels if text(item.header, "SeriesInstanceUID").endswith(uid)]
    if labels or any(text(item.header, "Rows") for item in objects):
        return sorted(labels, key=lambda item: natural(item.location.name))
    modalities = sorted({text(item.header, "Modality") or "objects without modality" for item in objects})
    only = f", only {', '.join(modalities)}" if modalities else ""
    raise FormatError(
        f"holds no DICOM segmentation or structure set{only}",
        where=path,
        fix="give the SEG or RTSTRUCT file",
    )


def _uids(source: Source) -> set[str]:
    return {text(header, "SOPInstanceUID") for header in source.details.get("headers", ())} - {""}


def _series(path: Path, image: Image | Header | None) -> Image:
    """An image series whose values are labels: its numbers, after rescaling.

    Raises:
        FormatError: as `image.read.read`; it is the image itself; or it is MONOCHROME1, or was compressed with loss.
    """
    label = read(path, numbers=True)
    assert label.source is not None
    if image is not None and image.source is not None and _uids(label.source) & _uids(image.source):
        raise FormatError(
            "holds no DICOM segmentation or structure set, only the image itself",
            where=path,
            fix="give its label: a SEG, an RTSTRUCT, or a series whose values are labels",
        )
    for header in label.source.details["headers"]:
        if text(header, "PhotometricInterpretation") == "MONOCHROME1":
            raise FormatError(
                "is to be shown inverted (MONOCHROME1), so that readers do not agree on its numbers",
                where=path,
                fix="export the labels as MONOCHROME2",
            )
        said, syntax = text(header, "LossyImageCompression"), syntax_of(header)
        if said == "01" or syntax in _LOSSY or (syntax in _EITHER and said != "00"):
            raise FormatError(
                "was compressed with loss, which changes the numbers of classes",
                where=path,
                fix="export the labels without compression",
            )
    return label


def _together(
    objects: list[DicomObject], archives: Archives, image: Image | Header | None, labels: Labels | None
) -> Image:
    """Several objects of one image, each with structures of its own, as one label.

    Raises:
        FormatError: two of them hold a structure of the same name; or they lie on different grids.
    """
    owners: dict[str, DicomObject] = {}
    for item in objects:
        for name in structure_names(item.header):
            other = owners.setdefault(name.strip().casefold(), item)
            if other is not item:
                raise FormatError(
                    f"holds {len(objects)} segmentations and structure sets, of which {other.location.name} and "
                    f"{item.location.name} both hold {name!r}",
                    fix="give one of them; where each is a structure called after its file, say so in dataset.yaml: "
                    "`label: ['{case}/segmentations/liver.dcm', '{case}/segmentations/spleen.dcm']`",
                )
    names = (name for item in objects for name in structure_names(item.header))
    wanted = set(select_structures(dict(enumerate(names)), labels).values())
    parts = [_one(item, archives, image, labels) for item in objects if wanted & {*structure_names(item.header)}]
    return overlaid(parts, tuple(item.path for item in objects))


def _one(item: DicomObject, archives: Archives, image: Image | Header | None, labels: Labels | None) -> Image:
    try:
        if KINDS[text(item.header, "SOPClassUID")] == "rtstruct":
            return rtstruct.read(item, image, labels)
        return seg.read(item, archives, image, labels)
    except CpfnetError as error:
        raise type(error)(error.what, where=item.path, fix=error.fix) from error
    except MemoryError:
        raise FormatError("does not fit into memory", where=item.path, fix="free memory") from None
    except Exception as error:  # pydicom decodes on access, and raises anything on damaged values
        raise FormatError(
            f"is damaged: {redacted_message(error)}", where=item.path, fix="copy or export it again"
        ) from error


def read_label(path: Path, image: Image | Header | None = None, labels: Labels | None = None) -> Image:
    """Read segmentations (SEG) or structure sets (RTSTRUCT), or an image series whose values are labels.

    Args:
        path: the file; a folder or ZIP archive that holds such objects of one image, or one series; or
            ``PLACE/series=UID``. Several objects are one label if each has structures of its own.
        image, labels: as in `seg.read` and `rtstruct.read`; of no meaning for a series, which lies where it says.

    Returns:
        With `Image.meanings`; of a series without.

    Raises:
        FormatError, DatasetError: as these; or there is no such object, or several have a structure of one name.
    """
    with Archives() as archives, quiet():
        items = labels_at(path, archives)
        if not items:
            return _series(path, image)
        try:
            if len(items) > 1:
                return _together(items, archives, image, labels)
            return _one(items[0], archives, image, labels)
        except CpfnetError as error:
            where = path if len(items) == 1 or error.where is None else error.where
            raise type(error)(error.what, where=where, fix=error.fix) from error
