"""What a job may ask for: how its image is segmented, and what is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from cpfnet.formats import OutputFormat
from cpfnet.inference.options import OutputOptions, PredictorOptions


@dataclass(frozen=True)
class JobOptions:
    """Options of one job; what they mean stands in `PredictorOptions` and `OutputOptions`.

    Attributes:
        format: of the mask.
        tta, force: how it is predicted.
        overlay, probabilities, uncertainty: what else is written.

    Raises:
        OutputError: no such format.
    """

    format: OutputFormat = "same"
    tta: bool = False
    force: bool = False
    overlay: bool = False
    probabilities: bool = False
    uncertainty: bool = False

    def __post_init__(self) -> None:
        self.output()

    def output(self) -> OutputOptions:
        return OutputOptions(
            format=self.format,
            overlays=self.overlay,
            probabilities=self.probabilities,
            uncertainty=self.uncertainty,
        )

    def predictor(self, options: PredictorOptions) -> PredictorOptions:
        """The options of a worker's Predictor for this job."""
        return replace(options, tta=self.tta, force=self.force)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
