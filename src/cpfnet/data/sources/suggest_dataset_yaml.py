"""Patterns for a ``dataset.yaml``, found by comparing the names of files: for folders that no layout fits."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cpfnet import formats
from cpfnet.formats.file_types import RASTER_SUFFIXES, VOLUME_SUFFIXES

_LOOKED_INTO = 2000
_CASES_TRIED = 100
_MOST = 3
"""Patterns for labels among which the user may have to choose."""
_ROLES = {
    "label": "mask masks seg segm segs segmentation segmentations label labels lbl lbls gt gts groundtruth truth "
    "annotation annotations annot manual target targets",
    "roi": "roi rois fov",
    "image": "image images img imgs im scan scans photo photos original originals orig input inputs raw picture "
    "pictures",
}
"""What words in names say that a file is; the first role that is named counts: ``image_mask.png`` is a label."""
_WORDS = {role: set(words.split()) for role, words in _ROLES.items()}
_WORD = re.compile("|".join(word for words in _WORDS.values() for word in words))
_SEPARATOR = "[-_. ]"

Ids = frozenset[tuple[str, ...]]


@dataclass(frozen=True)
class _Group:
    """Files that one pattern finds.

    Attributes:
        pattern: with {case}, or {patient} and {case}.
        ids: what these stand for.
        files: the same for all patterns of the same files.
        effort: how much the pattern takes to be equal in all names; less is better.
    """

    pattern: str
    ids: Ids
    files: tuple[str, ...]
    effort: int

    @property
    def role(self) -> str:
        return _role(re.sub(r"\{\w+\}", "/", self.pattern))


@dataclass(frozen=True)
class Suggestion:
    """Patterns that pair files: of images, of what may be labels (best first), and of regions of interest or ""."""

    image: str
    labels: tuple[str, ...]
    roi: str

    @property
    def fix(self) -> str:
        """Lines to paste into a ``dataset.yaml``; one way for each pattern that may be the labels."""
        ways = []
        for label in self.labels:
            keys = {"image": self.image, "label": label} | ({"roi": self.roi} if self.roi else {})
            *first, last = (f"`{key}: {in_yaml(pattern)}`" for key, pattern in keys.items())
            place = re.sub(r"/?[^/]*$", "", label) or label
            choice = f" if what is to be learned lies in '{place}'" if len(self.labels) > 1 else ""
            ways.append(f"write {', '.join(first)} and {last} into `dataset.yaml`{choice}")
        return "; or ".join(ways)


def suggest(root: Path) -> Suggestion | None:
    """Patterns that pair images with labels below a folder; None where names tell nothing.

    Names may begin or end with words that all share (``case1_image.png``, ``mask_7.png``), be the same in a folder a
    case (``case1/image.png``), or be numbered anew for each patient.
    """
    files = _files(root)
    groups = [group for group in _groups(files) if len(group.ids) > 1 or len(files) <= 4]
    groups = [group for group in groups if not any(_WORD.fullmatch(one[-1].lower()) for one in group.ids)]
    best: tuple[tuple[int, int, int], _Group] | None = None
    fitting: dict[str, list[tuple[tuple[int, int, int], _Group]]] = defaultdict(list)
    for image in groups:
        for other in groups:
            roles = image.role, other.role
            if roles not in (("image", "label"), ("image", ""), ("", "label")) or image.files == other.files:
                continue
            if score := _score(image, other):
                fitting[image.pattern].append((score, other))
                best = max(best or (score, image), (score, image), key=lambda one: one[0])
    if best is None:
        return None
    (pairs, words, _), image = best
    labels: dict[tuple[str, ...], str] = {}
    for score, other in sorted(fitting[image.pattern], key=lambda one: one[0], reverse=True):
        if 2 * score[0] > pairs and score[1] == words:
            labels.setdefault(other.files, other.pattern)
    rois = [(score, one.pattern) for one in groups if one.role == "roi" and (score := _score(image, one))]
    return Suggestion(image.pattern, tuple(labels.values())[:_MOST], max(rois)[1] if rois else "")


def pattern_for(files: Sequence[Path], ids: Iterable[str], root: Path) -> str:
    """The pattern that most of these files follow, where their names hold the id of a case; else ""."""
    found: Counter[str] = Counter()
    words = sorted(ids, key=len, reverse=True)
    for path in files[:_CASES_TRIED]:
        name = path.relative_to(root).as_posix()
        named = (re.sub(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", "{case}", name) for word in words)
        found.update(next(([one] for one in named if one != name), []))
    pattern, count = found.most_common(1)[0] if found else ("", 0)
    return pattern if 2 * count > len(files[:_CASES_TRIED]) else ""


def _score(image: _Group, other: _Group) -> tuple[int, int, int] | None:
    """Pairs, how many of the two say what they are, and the effort, less is more; None where most find no partner."""
    pairs = len(image.ids & other.ids)
    if not pairs or 2 * pairs < max(len(image.ids), len(other.ids)):
        return None
    return pairs, bool(image.role) + bool(other.role), -image.effort - other.effort


def in_yaml(pattern: str) -> str:
    return "'" + pattern.replace("'", "''") + "'"


def _role(name: str) -> str:
    words = set(re.findall(r"[a-z]+", name.lower()))
    return next((role for role in _ROLES if words & _WORDS[role]), "")


def _files(root: Path) -> list[tuple[str, ...]]:
    """Parts of the paths of pictures and volumes below a folder, nothing hidden."""

    def walk() -> Iterator[tuple[str, ...]]:
        for parent, below, names in os.walk(root):
            below[:] = sorted(name for name in below if not name.startswith((".", "__MACOSX")))
            for name in sorted(names):
                if formats.suffix_of(name) in (*RASTER_SUFFIXES, *VOLUME_SUFFIXES) and not name.startswith("."):
                    yield (*Path(parent).relative_to(root).parts, name)

    return [parts for parts in islice(walk(), _LOOKED_INTO) if not re.search(r"[{}*?]", "".join(parts))]


def _groups(files: Iterable[tuple[str, ...]]) -> Iterator[_Group]:
    in_folder: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    called_alike: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for *folders, name in files:
        stem = formats.stem(name)
        suffix = name[len(stem) :]
        # Of what shares a folder, the first and the last word tell images from masks.
        ends = re.split(rf"{_SEPARATOR}|\d+", stem)
        role = _role(f"{ends[0]} {ends[-1]}") or _role(" ".join(re.split(_SEPARATOR, stem)[-1:]))
        in_folder["".join(f"{part}/" for part in folders), role, suffix].append((stem,))
        for level, part in enumerate(folders):
            above, below = ("".join(f"{p}/" for p in parts) for parts in (folders[:level], folders[level + 1 :]))
            own = re.sub(rf"(?<![^\W_]){re.escape(part)}(?![^\W_])", "{case}", name)
            called_alike[f"{above}{{case}}/{below}{own}"].add((part,))
            in_folder[f"{above}{{patient}}/{below}", role, suffix].append((part, stem))
    for pattern, files in called_alike.items():
        yield _Group(pattern, frozenset(files), (pattern,), 1)
    for (folder, role, suffix), names in in_folder.items():
        if len(names[0]) > 1 and len({patient for patient, _ in names}) < 2:
            continue
        for effort, (before, after) in enumerate(_affixes([one[-1] for one in names])):
            ids = frozenset((*one[:-1], one[-1][len(before) : len(one[-1]) - len(after)]) for one in names)
            if all(one[-1] for one in ids) and len(ids) == len(names):
                pattern = f"{folder}{before}{{case}}{after}{suffix}"
                yield _Group(pattern, ids, (folder, role, suffix), effort + 4 * len(names[0]))


def _affixes(stems: list[str]) -> list[tuple[str, str]]:
    """Beginnings and ends, in whole words, that all names share, the least first; of one name: what says what it is."""
    start, end = _start(stems), _start([stem[::-1] for stem in stems])[::-1]
    found = re.match(rf".*{_SEPARATOR}|[^\W\d_]+(?=\d*$)", start), re.search(rf"{_SEPARATOR}.*$", end)
    if len(stems) == 1:
        found = re.match(rf"[^\W\d_]+{_SEPARATOR}?", start), re.search(rf"{_SEPARATOR}[^\W_]+$", end)
    before, after = (one[0] if one and (len(stems) > 1 or _role(one[0])) else "" for one in found)
    return list(dict.fromkeys([("", ""), ("", after), (before, ""), (before, after)]))


def _start(names: list[str]) -> str:
    """The longest beginning that all share."""
    first, last = min(names), max(names)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
