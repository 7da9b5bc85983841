"""What a bundle's ``configs/inference.json`` calls: its network, and prediction with all that was fitted."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpfnet.errors import CpfnetError
from cpfnet.inference.batch.run import predict_files
from cpfnet.inference.options import OutputOptions, PredictorOptions
from cpfnet.model import Model

if TYPE_CHECKING:
    import torch


def network(folder: str) -> torch.nn.Module:
    """The trained network of a bundle, as `Model.network`.

    Args:
        folder: the bundle's ``models``.

    Raises:
        CpfnetError: there is none, or it is damaged.
    """
    return _load(folder).network()


def predict(folder: str, images: str, out: str, **keywords: Any) -> None:
    """Segment images as ``cpfnet predict`` does; one bad image does not stop the others.

    Args:
        folder: the bundle's ``models``.
        images: a file, folder or pattern.
        out: folder for the label maps; made if need be.
        keywords: of `PredictorOptions`, `OutputOptions` and `cpfnet.predict_files`, side by side: a configuration of
            MONAI holds plain values.

    Raises:
        SystemExit: what is wrong and how to fix it; once all others are done, what is wrong with each image that was
            refused or failed. MONAI would wrap any other exception, message and all, into advice for debuggers.
    """
    try:
        options = PredictorOptions(**_taken(PredictorOptions, keywords))
        output = OutputOptions(**_taken(OutputOptions, keywords))
        outcomes = predict_files([_load(folder)], [str(images)], Path(str(out)), options, output, **keywords)
    except CpfnetError as error:
        raise SystemExit(str(error)) from None
    left = [outcome.message for outcome in outcomes if outcome.status in ("refused", "failed")]
    done = sum(outcome.status == "done" for outcome in outcomes)
    print(f"{done} of {len(outcomes)} done, in {out}")
    if left:
        raise SystemExit("\n".join(left))


def _taken(kind: type, keywords: dict[str, Any]) -> dict[str, Any]:
    """What of the keywords belongs to a class of options; it is taken out of them."""
    if "allow_import" in keywords:  # the configuration comes with the bundle: it is not the user who speaks
        raise CpfnetError(
            "a bundle cannot allow modules to be imported",
            where="allow_import",
            fix="predict with the Model in its folder: cpfnet predict models … --allow-import MODULE",
        )
    return {field.name: keywords.pop(field.name) for field in fields(kind) if field.name in keywords}


def _load(folder: str) -> Model:
    if not Path(folder).is_dir():
        raise CpfnetError(
            "no such folder, so this is not where the bundle lies",
            where=Path(folder).resolve(),
            fix="run it in the bundle's folder, or add  --bundle_root FOLDER",
        )
    return Model.load(folder)
