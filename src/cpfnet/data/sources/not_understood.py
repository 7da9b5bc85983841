"""Why a folder or file is no dataset, as far as one can see."""

from __future__ import annotations

from pathlib import Path

from cpfnet import formats
from cpfnet.data.finding import shown
from cpfnet.data.sources.folders import begins_as_dicom, entries, folders, image_files, known, parts_of
from cpfnet.data.sources.suggest_dataset_yaml import suggest
from cpfnet.data.sources.unread_files import counted, unread_below, unread_fix
from cpfnet.errors import DatasetError
from cpfnet.text import printable

UNDERSTOOD = (
    "understood are: images/ with masks/ or labels/ (with train/ val/ test/ above or below), DICOM studies with SEG "
    "or RTSTRUCT, nnU-Net raw (imagesTr, labelsTr, "
    "dataset.json), a datalist JSON, a CSV manifest (case,image,label); for any other order of files put a "
    "dataset.yaml beside them, such as `image: scans/{case}.png` and `label: manual/{case}_mask.png`"
)


def no_list(path: Path) -> DatasetError:
    """Why a file is no list of cases: mostly it is one of those that the folder to give holds."""
    folder = printable(str(path.parent))
    if formats.suffix_of(path) == ".zip":
        return DatasetError(
            "a ZIP archive is no DATASET", where=path, fix=f"unpack it, or give the folder that holds it: `{folder}`"
        )
    if known(path) or begins_as_dicom(path):
        return DatasetError(
            "one file of it is no DATASET", where=path, fix=f"give the folder that holds it: `{folder}`"
        )
    return DatasetError(
        f"a file ending in {path.suffix.lower() or 'nothing'} is no DATASET", where=path, fix=UNDERSTOOD
    )


def not_understood(root: Path) -> DatasetError:
    """Why a folder is no data set, as far as one can see."""
    parts = parts_of(root)
    aside = unread_below(root)
    unread = f"; {counted(aside)}, which is no format that is read" if aside else ""
    suggestion = suggest(root)
    advice = "; or ".join(filter(None, [suggestion.fix if suggestion else "", unread_fix(aside, root)]))
    if not parts:
        names = ", ".join(printable(name) for name in sorted(folders(root))[:8])
        count = len(image_files(root))
        direct = f"; {count} image file{'s' * (count > 1)}" if count else ""
        return DatasetError(
            f"cannot be understood as a dataset (folders found: {names or 'none'}{direct}{unread})",
            where=root,
            fix=advice or UNDERSTOOD,
        )
    if not any(labels for _, _, labels, _ in parts):
        others = sorted(set(folders(root)) | {name for _, images, _, _ in parts for name in folders(images.parent)})
        return DatasetError(
            "holds images/ but neither masks/ nor labels/ (folders found: "
            f"{', '.join(map(printable, others))}{unread})",
            where=root,
            fix=advice
            or "rename the folder of the masks to masks/, or put a dataset.yaml beside it: `image: "
            "images/{case}.png`, `label: …`",
        )
    inside = sorted({path.suffix for _, images, _, _ in parts for path in entries(images) if path.is_file()})
    nested = [shown(path, root) for _, images, _, _ in parts for path in folders(images).values()]
    seen = (
        f"files ending in {', '.join(inside)}"
        if inside
        else f"folders {', '.join(nested[:5])}"
        if nested
        else "nothing"
    )
    return DatasetError(
        f"no image to use in images/ (found: {seen}{unread})",
        where=root,
        fix=advice
        or f"use one of {', '.join(formats.IMAGE_SUFFIXES)}; folders inside need a dataset.yaml: "
        "`image: images/{patient}/{case}.png`",
    )
