"""Follows the fixes that `check` prints, word by word.

What a fix asks to be done anew is taken from an unharmed copy.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel
import nibabel.processing
import numpy as np
from PIL import Image as Pillow
from ruamel.yaml import YAML

from tests.synthetic import write_raster


def _edit(path: Path, change) -> None:
    """Apply ``change`` (array → array) to the pixels of a PNG or NIfTI file."""
    if path.suffix == ".png":
        write_raster(path, change(np.array(Pillow.open(path))))
    else:
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)


def _draw(array: np.ndarray) -> np.ndarray:
    """A structure on the background; 255 in pictures and 1 in volumes, as in the sets of these tests."""
    array = np.zeros_like(array)
    array[(slice(4, 9),) * 2] = 255 if array.ndim == 2 else 1
    return array


def _rows(path: Path, change) -> None:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(change(rows))


def _write(lines: list[str], path: Path) -> None:
    yaml = YAML(typ="safe")
    content = (yaml.load(path.read_text()) or {}) if path.exists() else {}
    for line in lines:
        content |= yaml.load(line)
    yaml.dump(content, path)


def follow(fix: str, root: Path, dataset: Path, good: Path) -> Path:
    """Do what one way of a fix says.

    Args:
        fix: one of the ways that "; or " parts.
        root: of the harmed dataset.
        dataset: what is given as DATASET.
        good: the unharmed copy of ``root``.

    Returns:
        What is to be given as DATASET from now on.
    """
    fix = fix.split("`: write `")[-1] if fix.startswith("set `labels.threshold") else fix
    fix = fix.removeprefix("if they are channels, ")
    if not fix.startswith(("add", "move", "remove")) and "labels:" in fix and not fix.startswith("write"):
        fix = "write `" + fix
    names = re.findall(r"`([^`]*)`", fix)
    files = [root / name for name in names]

    def again(path: Path) -> None:
        intact = good / path.relative_to(root)
        if intact.is_dir():
            shutil.rmtree(path)
            shutil.copytree(intact, path)
        else:
            shutil.copy(intact, path)

    def done(pattern: str) -> re.Match[str] | None:
        return re.match(pattern, fix)

    if done("move "):
        for path in files:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif done("add labelled cases of "):
        for path in good.rglob("*"):
            if path.is_file() and not (root / path.relative_to(good)).exists():
                again(root / path.relative_to(good))
    elif done("add ") or done("export ") or done("replace `.*` by a readable copy") or done("convert `|keep "):
        for path in files[:1] if not done("add ") else files:
            again(path)
    elif done("replace them by 0 in "):
        _edit(files[0], lambda a: np.nan_to_num(a, nan=0, posinf=0, neginf=0))
    elif found := done(r"replace the values (.+) by (\d+) in "):
        values = [int(v) for v in found[1].split(", ")]
        _edit(files[0], lambda a: np.where(np.isin(a, values), int(found[2]), a).astype(a.dtype))
    elif done("draw ") or done("annotate "):
        again(files[0]) if files[0].suffix == ".dcm" else _edit(files[0], _draw)
    elif done("resample `.*` onto the grid of "):
        if files[0].suffix == ".png":
            size = Pillow.open(files[1]).size
            Pillow.open(files[0]).resize(size, Pillow.Resampling.NEAREST).save(files[0])
        else:
            moved = nibabel.processing.resample_from_to(nibabel.load(files[0]), nibabel.load(files[1]), order=0)
            nibabel.save(moved, files[0])
    elif done("if .*, copy the affine of "):
        affine, image = nibabel.load(files[0]).affine, nibabel.load(files[1])
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), files[1])
    elif found := done(r"correct the spacing to (.*) mm in the headers of "):
        for path in files:
            affine = np.diag([*map(float, found[1].split(" × ")), 1.0])
            nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(path).dataobj), affine), path)
    elif found := done("set `split` of case (.*) to `"):
        *cases, split, manifest = names[1:]
        _rows(root / manifest, lambda rows: [{**r, "split": split} if r["case"] in cases else r for r in rows])
    elif done("remove the second entry of case "):
        seen: list[str] = []
        _rows(files[1], lambda rows: [r for r in rows if not (r["case"] in seen or seen.append(r["case"]))])
    elif done("remove the entry of case ") and files[-1].suffix == ".json":
        lists = json.loads(files[-1].read_text())
        kept = {
            key: [e for e in entries if Path(e["image"]).name.split(".")[0] not in names]
            for key, entries in lists.items()
        }
        files[-1].write_text(json.dumps(kept))
    elif done("remove the entry of case "):
        _rows(files[-1], lambda rows: [r for r in rows if r["case"] not in names])
    elif done("give it another id, in `case`"):
        taken: list[str] = []
        _rows(
            dataset,
            lambda rows: [
                r if not (r["case"] in taken or taken.append(r["case"])) else {**r, "case": "new"} for r in rows
            ],
        )
    elif done("fill in `"):
        shutil.copy(good / files[2].name, files[2])
    elif done("write `manifest: "):
        _write(names[:2], root / "dataset.yaml")
        return root / "dataset.yaml"
    elif done("write `"):
        _write(names[:-1], files[-1])
        return dataset
    else:
        raise AssertionError(f"nobody could follow this fix: {fix}")
    return dataset
