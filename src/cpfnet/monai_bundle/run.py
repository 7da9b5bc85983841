"""What a bundle's ``configs/inference.json`` calls: its network, and prediction with all that was fitted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpfnet.errors import CpfnetError
from cpfnet.inference.batch.run import predict_files
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


def predict(folder: str, images: str, out: str, **options: Any) -> None:
    """Segment images as ``cpfnet predict`` does; one bad image does not stop the others.

    Args:
        folder: the bundle's ``models``.
        images: a file, folder or pattern.
        out: folder for the label maps; made if need be.
        options: of `inference.run.predict_files`.

    Raises:
        SystemExit: what is wrong and how to fix it; once all others are done, what is wrong with each image that was refused or failed.
            MONAI would wrap any other exception, message and all, into advice for debuggers.
    """
    try:
        outcomes = predict_files([_load(folder)], [str(images)], Path(str(out)), **options)
    except CpfnetError as error:
        raise SystemExit(str(error)) from None
    left = [outcome.message for outcome in outcomes if outcome.status in ("refused", "failed")]
    done = sum(outcome.status == "done" for outcome in outcomes)
    print(f"{done} of {len(outcomes)} done, in {out}")
    if left:
        raise SystemExit("\n".join(left))


def _load(folder: str) -> Model:
    if not Path(folder).is_dir():
        raise CpfnetError(
            "no such folder, so this is not where the bundle lies",
            where=Path(folder).resolve(),
            fix="run it in the bundle's folder, or add  --bundle_root FOLDER",
        )
    return Model.load(folder)
