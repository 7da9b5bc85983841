"""One input of a batch: the files of an image, and what its results are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cpfnet.errors import CpfnetError


@dataclass(frozen=True)
class Item:
    """One image to be.

    Attributes:
        files: one, or one a channel; of DICOM what `cpfnet.formats.read` takes for one series.
        name: of its results: below the output folder, without suffix.
        error: why there is no image.
        place: of a DICOM series, for messages; default: the first file.
        modality: of a DICOM series, in the Plan's words.
        skipped: why the Model is not for this series, which nobody named, while another of its study fits; else "".
    """

    files: tuple[Path, ...]
    name: str
    error: CpfnetError | None = None
    place: Path | None = None
    modality: str | None = None
    skipped: str = ""

    @property
    def path(self) -> Path:
        """What to call it in messages."""
        return self.place or self.files[0]
