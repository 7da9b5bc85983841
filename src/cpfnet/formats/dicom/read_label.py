"""Which object a label path means, and reading it."""

from __future__ import annotations

from pathlib import Path

from cpfnet.errors import CpfnetError, FormatError, redacted_message
from cpfnet.formats.dicom.attributes import quiet, text
from cpfnet.formats.dicom.image.datasets import Archives, DicomObject, locations, read_object
from cpfnet.formats.dicom.referenced_images import KINDS
from cpfnet.formats.dicom.rtstruct import read as rtstruct
from cpfnet.formats.dicom.seg import read as seg
from cpfnet.formats.file_types import SERIES, Header, check_readable, is_reference
from cpfnet.image import Image
from cpfnet.planning import Labels


def one_label(path: Path, archives: Archives) -> DicomObject:
    """The one segmentation or structure set that ``path`` means."""
    uid = path.name.removeprefix(SERIES) if is_reference(path) else ""
    place = path.parent if uid else path
    if not place.is_dir():
        check_readable(place)
    objects = [item for location in locations([place], archives) if (item := read_object(location, archives))]
    labels = [item for item in objects if text(item.header, "SOPClassUID") in KINDS]
    labels = [item for item in labels if text(item.header, "SeriesInstanceUID").endswith(uid)]
    if len(labels) == 1:
        return labels[0]
    if labels:
        names = ", ".join(item.location.name for item in labels[:8])
        raise FormatError(
            f"holds {len(labels)} segmentations and structure sets: {names}",
            where=path,
            fix="give one of them; of an archive, unpacked",
        )
    modalities = sorted({text(item.header, "Modality") or "objects without modality" for item in objects})
    only = f", only {', '.join(modalities)}" if modalities else ""
    raise FormatError(
        f"holds no DICOM segmentation or structure set{only}",
        where=path,
        fix="give the SEG or RTSTRUCT file",
    )


def read_label(path: Path, image: Image | Header | None = None, labels: Labels | None = None) -> Image:
    """Read a segmentation (SEG) or structure set (RTSTRUCT).

    Args:
        path: the file; a folder or ZIP archive that holds one such object; or ``ARCHIVE.zip/series=UID``.
        image, labels: as in `seg.read` and `rtstruct.read`.

    Raises:
        FormatError, DatasetError: as these; or there is no such object, or several.
    """
    with Archives() as archives, quiet():
        item = one_label(path, archives)
        try:
            if KINDS[text(item.header, "SOPClassUID")] == "rtstruct":
                return rtstruct.read(item, image, labels)
            return seg.read(item, archives, image, labels)
        except CpfnetError as error:
            raise type(error)(error.what, where=path, fix=error.fix) from error
        except MemoryError:
            raise FormatError("does not fit into memory", where=path, fix="free memory") from None
        except Exception as error:  # pydicom decodes on access, and raises anything on damaged values
            raise FormatError(
                f"is damaged: {redacted_message(error)}", where=path, fix="copy or export it again"
            ) from error
