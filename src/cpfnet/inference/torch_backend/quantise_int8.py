"""The network in int8 for OpenVINO, by NNCF: calibrated on training cases, judged on validation cases.

It is kept only if it decides as float32 does.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cpfnet import formats, preprocessing
from cpfnet.data.case import Case, Dataset
from cpfnet.errors import DatasetError, NetworkError
from cpfnet.evaluation.evaluate import evaluate
from cpfnet.files import replacing
from cpfnet.image import Segmentation
from cpfnet.inference.backends import exported_files
from cpfnet.inference.backends.autotune import AGREEMENT, DICE, GAIN, decided, overlap
from cpfnet.inference.backends.exported_files import Judged, prepared
from cpfnet.inference.backends.runtimes import computes_bf16, openvino_backend
from cpfnet.inference.dataset_predictions import item_of
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.predictor import Predictor
from cpfnet.inference.sliding_window import predict_array
from cpfnet.inference.tiling import Backend
from cpfnet.inference.torch_backend.onnx_graph import described, save_openvino
from cpfnet.model import Model
from cpfnet.progress import Bar

logger = logging.getLogger(__name__)

CASES = 32
"""Training cases to calibrate on, at even distances, …"""

PIECES = 4
"""… and of each the pieces given to the network in which float32 finds most."""

RANKING = 6
"""Pieces on which NNCF ranks the layers: each is tried with each of more than a hundred layers."""

RESTORED = 0.0005
"""Share of pixels of the calibration pieces that may be decided otherwise.

Where plain quantisation is not good enough, layers go back to float until no more are.
"""


def quantise(model: Model, dataset: Dataset, *, progress: bool = False) -> Path:
    """Make the int8 graph beside the Model.

    Plain post-training quantisation first (per-channel weights, activations calibrated on the pieces). If what it
    decides on the validation cases is too far from float32, NNCF's accuracy control puts the layers that matter most
    back to float, judged on the calibration pieces.

    Args:
        model: lies in a folder, whose ``metrics.json`` names its training and validation cases.
        dataset: that it was trained on.
        progress: show bars.

    Returns:
        The graph; what it was judged by is kept in the record.

    Raises:
        NetworkError: NNCF is not installed, or int8 is not good enough for this Model; the figures are said.
        DatasetError: it has none of the Model's cases.
        OutputError: the Model's folder cannot be written.
    """
    nncf, openvino = _libraries()
    training, validation = (_named(dataset, model, part) for part in ("train", "validation"))
    graph = prepared(model)
    exact = openvino_backend(graph)
    pieces = _pieces(exact, model, training, progress=progress)
    network = openvino.Core().read_model(graph)
    calibration = nncf.Dataset(pieces, lambda piece: {"image": piece})
    common: dict[str, Any] = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(pieces)}

    def plain() -> Any:
        return nncf.quantize(network, calibration, **common)

    def controlled() -> Any:
        expected = [decided(exact(piece), model) for piece in pieces]

        def alike(compiled: Any, items: Any) -> tuple[float, None]:
            request = compiled.create_infer_request() if hasattr(compiled, "create_infer_request") else compiled
            found = (next(iter(request.infer(item).values())) for item in items)
            shares = [np.mean(decided(logits, model) == mask) for logits, mask in zip(found, expected, strict=True)]
            return float(np.mean(shares)), None

        return nncf.quantize_with_accuracy_control(
            network,
            calibration,
            calibration,
            alike,
            max_drop=RESTORED,
            drop_type=nncf.DropType.ABSOLUTE,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(ranking_subset_size=RANKING),
            **common,
        )

    reference = _segmentations(exact, model, validation, progress=progress)
    for extent, make in (("all layers", plain), ("but for the layers that matter most (takes minutes)", controlled)):
        with TemporaryDirectory(prefix="cpfnet-") as folder:
            logger.info("int8, %s …", extent)
            with redirect_stdout(StringIO()):  # NNCF's own bars
                quantised = make()
            for key, value in described(model).items():
                quantised.set_rt_info(value, ["cpfnet", key])
            trial = save_openvino(quantised, Path(folder) / exported_files.INT8)
            backend = openvino_backend(trial, "bf16" if computes_bf16() else "f32")
            judged = _judge(backend, reference, model, validation, progress=progress)
            figures = (
                f"{judged.agreement:.3%} of the pixels of {len(validation)} validation cases decided as in float32 "
                f"({AGREEMENT:.1%} needed), Dice with it {judged.dice:.4f} ({DICE} needed), "
                f"Dice {judged.gain:+.4f} ({GAIN} allowed)"
            )
            logger.info("int8, %s: %s", extent, figures)
            if judged.passed:
                path = graph.with_name(exported_files.INT8)
                for suffix in (".bin", ".xml"):
                    with replacing(path.with_suffix(suffix), overwrite=True) as temporary:
                        temporary.write_bytes(trial.with_suffix(suffix).read_bytes())
                found = exported_files.written(model)
                assert found is not None  # prepared() wrote it
                graphs = found.graphs | exported_files.hashes(model, exported_files.INT8, exported_files.INT8_WEIGHTS)
                exported_files.keep(  # each machine chooses anew
                    model, found.model_copy(update={"graphs": graphs, "int8": judged, "choices": ()})
                )
                return path
    raise NetworkError(
        f"int8 is not good enough for this Model: {figures}", where=model.folder, fix="predict with --backend auto"
    )


def _libraries() -> tuple[Any, Any]:
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise NetworkError(f"{error.name} is not installed", fix='pip install "cpfnet[int8]"') from None
    logging.getLogger("nncf").setLevel(logging.ERROR)  # nncf.set_log_level changes handlers that others may share
    return nncf, openvino


def _named(dataset: Dataset, model: Model, part: str) -> list[Case]:
    """The cases that the Model's training says it had."""
    names = set(model.metrics.get("cases", {}).get(part, []))
    if not names:
        raise DatasetError(
            f"the Model does not name its {'training' if part == 'train' else part} cases, as shared ones do not",
            where=dataset.root,
            fix="quantise the Model where it was trained, and copy its folder with exports/",
        )
    cases = [case for case in dataset.cases if case.id in names and case.labels]
    if not cases:
        raise DatasetError(
            f"has none of the Model's {len(names)} {'training' if part == 'train' else part} cases",
            where=dataset.root,
            fix="give the dataset that it was trained on",
        )
    return cases


def _pieces(backend: Backend, model: Model, cases: Sequence[Case], *, progress: bool) -> list[np.ndarray]:
    """What the network is given of some cases: of each the pieces with most found, ``(1, in_channels, *spatial)``."""
    chosen: list[np.ndarray] = []
    step = max(1, math.ceil(len(cases) / CASES))
    with Bar(show=progress) as bar:
        for case in bar.track(cases[::step], description="Calibrating"):
            watching = _Watching(backend, model)
            image = preprocessing.match_channels(formats.read(list(case.images)), model.plan)
            array, _ = preprocessing.apply(image, model.plan)
            predict_array(watching, array, model.plan)
            chosen += [piece for _, _, piece in watching.best]
    return chosen


class _Watching:
    """A backend that keeps the `PIECES` in which it finds most."""

    def __init__(self, backend: Backend, model: Model) -> None:
        self.backend, self.model = backend, model
        self.best: list[tuple[int, int, np.ndarray]] = []
        self.seen = 0

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        logits = self.backend(batch)
        for piece, own in zip(batch, logits, strict=True):
            self.seen += 1
            found = int(np.count_nonzero(decided(own[None], self.model)))
            heapq.heappush(self.best, (found, -self.seen, piece[None].copy()))
            if len(self.best) > PIECES:
                heapq.heappop(self.best)
        return logits


def _segmentations(backend: Backend, model: Model, cases: Sequence[Case], *, progress: bool) -> list[Segmentation]:
    predictor = Predictor([model], PredictorOptions(backend=lambda _: backend, force=True))
    with Bar(show=progress) as bar:
        return [
            predictor.predict(formats.read(list(case.images))) for case in bar.track(cases, description="Validating")
        ]


def _judge(
    backend: Backend, reference: Sequence[Segmentation], model: Model, cases: Sequence[Case], *, progress: bool
) -> Judged:
    """A backend beside float32, over whole cases and against the truth."""
    found = _segmentations(backend, model, cases, progress=progress)
    masks, others = (np.concatenate([one.array.ravel() for one in some]) for some in (found, reference))
    gain = _dice(found, model, cases) - _dice(reference, model, cases)
    agreement, dice = float(np.mean(masks == others)), overlap(masks, others)
    passed = agreement >= AGREEMENT and dice >= DICE and gain >= GAIN
    return Judged(backend="openvino-int8", seconds=0, agreement=agreement, dice=dice, gain=gain, passed=passed)


def _dice(segmentations: Sequence[Segmentation], model: Model, cases: Sequence[Case]) -> float:
    """Mean over cases and classes."""
    items = [item_of(case, segmentation) for case, segmentation in zip(cases, segmentations, strict=True)]
    names = {label.name for label in model.plan.labels.classes}
    values = [row["dice"] for row in evaluate(items, model.plan.labels).rows if row["class"] in names]
    return float(np.nanmean(values))
