"""What in a data set may tell who the patients are; findings do not repeat it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cpfnet.data.checks.file_summary import Examined
from cpfnet.data.checks.fixes import FixSuggestions
from cpfnet.data.finding import Finding


def privacy(examined: Sequence[Examined], fixes: FixSuggestions) -> Iterator[Finding]:
    """Words in the pixels of images, and persons' names as names of structures."""
    for one in examined:
        for content in one.images:
            if content.burned_in:
                what = "BurnedInAnnotation is YES: words, such as the patient's name, may stand in the pixels"
                fix = "look at the picture (`--html`) before it, or a Model trained on it, is passed on"
                yield Finding("note", "burned-in", fixes.shown(content.path), what, fix, one.case.id)
        for content in one.labels.values():
            if content.personal:
                several = len(content.personal) > 1
                numbers = ", ".join(f"{n} ({content.names[n - 1][:1]}…)" for n in content.personal[:6])
                numbers += " …" * (len(content.personal) > 6)
                what = (
                    f"of its {len(content.names)} structures, the name{'s' * several} of number{'s' * several} "
                    f"{numbers} "
                    f"may be {'those of persons' if several else 'that of a person'}"
                )
                fix = (
                    "nothing needs to be done if it is not; else rename it where it was drawn: names of structures "
                    "become those of classes, and go into plans, Models, pages and masks"
                )
                yield Finding("warning", "personal-name", fixes.shown(content.path), what, fix, one.case.id)
