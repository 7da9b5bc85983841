"""What was repaired or assumed while reading many images, said once."""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 5


def gathered(notes: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """Each note once, with the cases that it is about.

    Args:
        notes: name of a case and its notes (`cpfnet.image.Source.notes`).

    Returns:
        ``"CASE, CASE …: note"``, in the order in which they first came.
    """
    about: dict[str, dict[str, None]] = {}
    for name, said in notes:
        for note in said:
            about.setdefault(note, {})[name] = None
    out = []
    for note, names in about.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        out.append(f"{', '.join([*names][:_SHOWN])}{more}: {note}")
    return out
