"""Which file in a folder of predictions belongs to which case: by the case's id, else by the place of its image."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cpfnet import formats
from cpfnet.data.case import Case
from cpfnet.data.sources.pseudonyms import digest
from cpfnet.formats.file_types import SERIES, is_reference
from cpfnet.text import printable

Name = tuple[str, ...]
"""A path below a folder, in parts, without the suffix of its file."""

_CHANNEL = re.compile(r"_\d{4}$")
_DIGEST = re.compile(r"-[0-9a-f]{8}$")
RANKS = 5


@dataclass(frozen=True)
class Match:
    """Files and cases that belong together, and what does not.

    Attributes:
        files: case → the file that is its prediction.
        several: case → files that fit it equally well, so that none is taken.
        claims: file that several cases could mean → these; it counts for none of them.
        assumed: likewise, but one of them alone is scored, and has it.
        unused: files that no case means, or a case that has a better one.
    """

    files: dict[str, Name] = field(default_factory=dict)
    several: dict[str, list[Name]] = field(default_factory=dict)
    claims: dict[Name, list[str]] = field(default_factory=dict)
    assumed: dict[Name, list[str]] = field(default_factory=dict)
    unused: list[Name] = field(default_factory=list)


def match(
    cases: Sequence[Case],
    files: Collection[Name],
    scored: Collection[str] = (),
    made: Mapping[Name, str] | None = None,
) -> Match:
    """Give each file to one case at most, and each case one file at most.

    A file means the cases that it is called as: (1) exactly as the id; (2) as the id but for capitals, or with folders
    in place of underscores; (3) exactly as the image, with as many of its folders as the file has; (4) likewise but for
    capitals; (5) as a folder above a DICOM series. The first of these that is true of any case decides. A file that
    means several cases counts for none; a case takes the file that means it most exactly.

    Args:
        cases: all of the dataset, not only those to be scored: a file that means another case is not free.
        files: where they lie.
        scored: cases of one part of the dataset, the only ones meant where names repeat beyond it.
        made: of files that are known to be made from the image of a case, this case: they mean no other, whatever they
            are called.
    """
    by_key = _by_key(cases)
    out = Match()
    owned: dict[str, dict[int, list[Name]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        calls = _meant(file, by_key)
        if made is not None and file in made:
            own = made[file]
            owned[own][next((rank for rank, meant in enumerate(calls) if own in meant), RANKS)].append(file)
            continue
        rank, meant = next(((rank, meant) for rank, meant in enumerate(calls) if meant), (RANKS, []))
        only = [case for case in meant if case in scored]
        if len(meant) > 1 and rank > 1 and len(only) == 1:
            out.assumed[file] = meant
            meant = only
        if len(meant) == 1:
            owned[meant[0]][rank].append(file)
        elif meant:
            out.claims[file] = meant
        else:
            out.unused.append(file)
    for case_id, ranks in owned.items():
        best, *others = (ranks[rank] for rank in sorted(ranks))
        if len(best) == 1:
            out.files[case_id] = best[0]
        else:
            out.several[case_id] = best
        out.unused.extend(file for more in others for file in more)
    return out


def ambiguous(cases: Sequence[Case], files: Collection[Name]) -> list[Name]:
    """Files whose name alone does not tell the case: it fits no case, or several in one way or another."""
    by_key = _by_key(cases)
    return [file for file in files if len({case for meant in _meant(file, by_key) for case in meant}) != 1]


def _by_key(cases: Sequence[Case]) -> list[defaultdict[Hashable, list[str]]]:
    by_key = [defaultdict[Hashable, list[str]](list) for _ in range(RANKS)]
    for case in cases:
        for rank, keys in enumerate(_keys_of_case(case)):
            for key in keys:
                by_key[rank][key].append(case.id)
    return by_key


def _meant(file: Name, by_key: Sequence[Mapping[Hashable, list[str]]]) -> list[list[str]]:
    """The cases that a file is called as, one list a rank."""
    return [
        list(dict.fromkeys(case for key in keys for case in by_key[rank].get(key, ())))
        for rank, keys in enumerate(_keys_of_file(file))
    ]


def name_of(inside: Path) -> Name:
    """The name of a file: its path below the folder, ``Path("case0/image.nii.gz")`` → ``("case0", "image")``."""
    return _parts(inside.with_name(formats.stem(inside)))


def places(case: Case) -> Iterator[Name]:
    """Paths that a case's prediction may be called after the end of, in parts; a series among others has its digest."""
    image = case.images[0].absolute()
    if is_reference(image):
        folder = image.parent
        name = folder.name if folder.is_dir() else formats.stem(folder)
        yield _parts(folder.with_name(f"{name}-{digest(image.name.removeprefix(SERIES))}"))
        yield _parts(folder.with_name(name))
        return
    stem = image.name if image.is_dir() else formats.stem(image)
    for name in dict.fromkeys((_CHANNEL.sub("", stem) or stem, stem)):
        yield _parts(image.with_name(name))


def _parts(path: Path) -> Name:
    return tuple(unicodedata.normalize("NFC", printable(part)) for part in path.parts)


def _folded(name: Name) -> Name:
    return tuple(part.casefold() for part in name)


def _keys_of_case(case: Case) -> Iterator[set[Hashable]]:
    image = case.images[0].absolute()
    ends = {place[-count:] for place in places(case) for count in range(1, len(place))}
    yield {(case.id,)}
    yield {case.id.casefold()}
    yield {*ends, *([f"-{digest(image.name.removeprefix(SERIES))}"] if is_reference(image) else [])}
    yield {_folded(end) for end in ends}
    yield {parent.name.casefold() for parent in image.parents} if formats.is_dicom(image) else set()


def _keys_of_file(file: Name) -> Iterator[set[Hashable]]:
    yield {file}
    yield {"_".join(file).casefold()}
    series = _DIGEST.search(file[-1])
    yield {file, *([series[0]] if series else [])}
    yield {_folded(file)}
    yield {file[0].casefold()} if len(file) == 1 else set()
