"""One folder a case, with its image and a folder of masks, one file a structure: the layout of TotalSegmentator."""

from __future__ import annotations

from pathlib import Path

from cpfnet.data.case import Case, Dataset
from cpfnet.data.finding import Finding, quoted, shown
from cpfnet.data.sources.folders import SPLITS, folders, image_files
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
    for split, below in groups:
        for path in below.values():
            found = _case(root, path, split)
            cases += [found] if isinstance(found, Case) else []
            problems += [found] if isinstance(found, Finding) else []
    if not any(case.labels for case in cases) and not any(problem.kind == "ambiguous-image" for problem in problems):
        return None
    return Dataset(root, root.resolve().name, tuple(cases), layout="one file a structure", problems=tuple(problems))


def _case(root: Path, folder: Path, split: str | None) -> Case | Finding | None:
    inside = folders(folder)
    masks = [inside[name] for name in MASKS if name in inside and is_structure_folder(inside[name])]
    images = image_files(folder)
    case = printable(folder.name)
    if len(images) > 1 and masks:
        image = f"{{case}}/{images[0].name}"
        return Finding(
            "error",
            "ambiguous-image",
            shown(folder, root),
            f"{len(images)} files could be the image of case {case}: {quoted(images, root)}; the case is left out",
            f"write `image: '{image}'` and `label: '{{case}}/{masks[0].name}'` into `dataset.yaml`, as it is right",
            case,
        )
    if not images:
        text = f"no image lies beside {masks[0].name}/; the case is left out" if masks else ""
        fix = "put its image there, or take the folder out"
        return Finding("error", "no-image", shown(folder, root), text, fix, case) if masks else None
    return (
        Case(case, case, (images[0],), {"label": masks[0]} if masks else {}, split=split) if len(images) == 1 else None
    )
