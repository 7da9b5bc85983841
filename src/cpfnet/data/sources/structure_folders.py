"""One folder a case, with its image and a folder of masks, one file a structure: the layout of TotalSegmentator."""

from __future__ import annotations

from pathlib import Path

from cpfnet.data.case import Case, Dataset
from cpfnet.data.finding import Finding, quoted, shown
from cpfnet.data.sources.folders import SPLITS, folders, holds_dicom, image_files
from cpfnet.data.sources.unread_files import unread_finding, unread_in
from cpfnet.formats.file_types import is_dicom
from cpfnet.formats.structure_folder import is_structure_folder
from cpfnet.text import printable

MASKS = ("segmentations", "segmentation", "masks", "labels")


def structure_folders(root: Path) -> Dataset | None:
    """``case/ct.nii.gz`` with ``case/segmentations/liver.nii.gz``; None where no folder of a case looks like that."""
    here = folders(root)
    groups: list[tuple[str | None, dict[str, Path]]] = [
        (split, folders(here[n])) for n, split in SPLITS.items() if n in here
    ]
    groups.append((None, {name: path for name, path in here.items() if name not in SPLITS}))
    cases: list[Case] = []
    problems: list[Finding] = []
    like_this = False
    for split, below in groups:
        for path in below.values():
            inside = _Inside(root, path)
            like_this |= bool(inside.masks)
            found = inside.case(split)
            cases += [found] if isinstance(found, Case) else []
            problems += [found] if isinstance(found, Finding) else []
            problems += [unread_finding(files, root, "masks") for files in inside.unread if files]
    if not like_this:
        return None
    return Dataset(root, root.resolve().name, tuple(cases), layout="one file a structure", problems=tuple(problems))


class _Inside:
    """What lies in the folder of a case.

    Attributes:
        images: files that could be its image.
        masks: folders that could be its label.
        mixed: those of them that hold DICOM and other masks.
        unread: of each folder that is called so, files of kinds that are not read.
    """

    def __init__(self, root: Path, folder: Path):
        inside = folders(folder)
        called = [inside[name] for name in MASKS if name in inside]
        self.root, self.folder = root, folder
        self.images = image_files(folder)
        self.masks = [path for path in called if is_structure_folder(path) or holds_dicom(path)]
        self.mixed = [
            path for path in self.masks if not is_structure_folder(path) and not all(map(is_dicom, image_files(path)))
        ]
        self.unread = [unread_in(path) for path in called]

    def case(self, split: str | None) -> Case | Finding | None:
        """The case; what is wrong with it; None where there is nothing of one."""
        name, images, masks = printable(self.folder.name), self.images, self.masks
        if not images:
            text = f"no image lies beside {masks[0].name}/; the case is left out" if masks else ""
            return self._finding("no-image", text, "put its image there, or take the folder out") if masks else None
        image = f"`image: '{{case}}/{images[0].name}'`"
        label = f"`label: '{{case}}/{masks[0].name}'`" if masks else ""
        fix = f"write {image}{' and ' * bool(label)}{label} into `dataset.yaml`, as it is right"
        if len(images) > 1:
            several = quoted(images, self.root)
            text = f"{len(images)} files could be the image of case {name}: {several}; the case is left out"
            return self._finding("ambiguous-image", text, fix)
        if len(masks) > 1:
            several = quoted(masks, self.root)
            text = f"{len(masks)} folders could be the label of case {name}: {several}; the case is left out"
            return self._finding("ambiguous-label", text, fix)
        if self.mixed:
            text = f"{quoted(self.mixed, self.root)} holds masks of DICOM and of other formats; the case is left out"
            return self._finding("mixed-formats", text, "convert them into one format, in a folder of their own")
        return Case(name, name, (images[0],), {"label": masks[0]} if masks else {}, split=split)

    def _finding(self, kind: str, text: str, fix: str) -> Finding:
        return Finding("error", kind, shown(self.folder, self.root), text, fix, printable(self.folder.name))
