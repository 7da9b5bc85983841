"""Image in, Segmentation out: one Model or several, within what they were fitted for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

import cpfnet
from cpfnet import preprocessing
from cpfnet.errors import CpfnetError
from cpfnet.image import Image, Segmentation
from cpfnet.inference.backends.select import backend_of
from cpfnet.inference.ensemble import Member, Progress, summed
from cpfnet.inference.input_checks import out_of_range, refusal
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.quality.brightness import unusual
from cpfnet.inference.quality.entropy import entropy
from cpfnet.inference.quality.estimate import Confidence, assess
from cpfnet.labels import classes_present, encode_prediction
from cpfnet.model import Fitted, Model
from cpfnet.planning import Channel, Labels, Plan, Spatial
from cpfnet.preprocessing import Slices, Trace
from cpfnet.preprocessing.postprocess import decide

logger = logging.getLogger(__name__)

SMALLEST = 32
"""Pixels along each axis of a tile, or as many as the patch has; networks see nothing of smaller ones at depth."""


class Predictor:
    """One or several Models, loaded once, for any number of images; several average their probabilities.

    What was fitted (temperature, thresholds, smallest components) is applied once, to the average over tiles, copies
    (``tta``) and Models: the mean of the Models' temperatures and of their thresholds, and of the sizes the smallest,
    so that nothing goes that one of them would keep. It was fitted for one Model without copies, and averages are less
    sure of themselves: they come out too uncertain rather than too certain.

    Args:
        models: trained for the same labels, channels and kind of source; their grids may differ.
        options: how they predict.

    Raises:
        CpfnetError: no Model, Models that do not belong together, or a tile that one of them cannot have.
        WeightsError, NetworkError, CodeError: see `backends.select.backend_of`.
    """

    def __init__(self, models: Sequence[Model], options: PredictorOptions | None = None):
        if not models:
            raise CpfnetError("no model was given", fix="give at least one Model")
        for model in models[1:]:
            check_same(models[0].plan, model, fix="average only models that were trained for the same task")
        self.options = options or PredictorOptions()
        self.models = models = [model.allowing(self.options.allow_import) for model in models]
        if self.options.tta and not any(m.plan.inference.mirror or m.plan.inference.quarter_turns for m in models):
            logger.warning("--tta does nothing: inference.mirror is empty and inference.quarter_turns is false")
        tiles = [None if self.options.tile is None else _tile(self.options.tile, model) for model in models]
        if small := [m for m, own in zip(models, tiles, strict=True) if own and _is_smaller(own, m.plan.spatial.patch)]:
            patch = "×".join(map(str, small[0].plan.spatial.patch))
            logger.warning("The tile is smaller than the patches of training (%s): expect worse masks", patch)
        # Models with the same preprocessing (folds of one plan) share it.
        groups: dict[tuple[tuple[Channel, ...], Spatial, tuple[str, ...]], list[Member]] = {}
        for number, model in enumerate(models):
            key = (model.plan.channels, model.plan.spatial, model.fitted.first_stage)
            groups.setdefault(key, []).append(Member(number, model, self._backend(model), tiles[number]))
        self._groups = list(groups.values())
        # Of the digests of its Models. The whole Model judges what is out of range, and the tile is of its grid.
        first = replace(self.options, force=True, tile=None)
        self._first_stages = {m.fitted.first_stage: Predictor(m.first_stage, first) for m in models if m.first_stage}

    def _backend(self, model: Model) -> Callable[[np.ndarray], np.ndarray]:
        backend = self.options.backend
        return backend_of(model, backend, device=self.options.device) if isinstance(backend, str) else backend(model)

    def predict(
        self,
        image: Image,
        *,
        keep_probabilities: bool = False,
        uncertainty: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> Segmentation:
        """Segment one image.

        Args:
            image: as read.
            keep_probabilities: the Segmentation carries them.
            uncertainty: the Segmentation carries the entropy of its probabilities (`quality.entropy`).
            progress: called with the share of the work done, 0…1.

        Returns:
            With its quality as far as it can be told (`quality.estimate`, `quality.brightness`), on the image's own
            grid, with the data set's label values.

        Raises:
            InputRefused: the image is of another kind than the Models' (always), or outside what they were fitted for
                (unless ``force``), with the figures.
            FormatError: NaN or infinite values.
        """
        image, traces = self._traces(image)
        if not self.options.force and (reasons := self._out_of_range(image, traces)):
            raise refusal(reasons, image.source.place if image.source else None)
        fitted, labels = Fitted.combined(self.models), self.models[0].plan.labels
        least = [_min_component_pixels(model, trace) for model, trace in self._by_model(traces)]
        work = Progress([*map(len, self._groups), *(len(one.models) for one in self._first_stages.values())], progress)
        found: dict[tuple[str, ...], np.ndarray] = {}
        for number, (digests, first) in enumerate(self._first_stages.items(), start=len(self._groups)):
            found[digests] = first.codes(image, progress=partial(work.update, number))
        seen = [found.get(members[0].model.fitted.first_stage) for members in self._groups]
        total, trace = summed(self._groups, traces, image, self.options, work, seen)
        mean = _Mean(total, len(self.models), fitted.temperature, fitted.threshold, labels)
        segmentation = preprocessing.restore(
            mean.slices(),
            trace,
            self.models[0].plan,
            threshold=fitted.threshold,
            min_component_pixels=np.min(least, axis=0).tolist(),
            keep_probabilities=keep_probabilities,
            uncertainty=partial(entropy, exclusive=labels.exclusive) if uncertainty else None,
        )
        # What the mask lacks was not found: small components are dropped from it after the network was asked.
        in_mask = classes_present(segmentation.array, labels)
        means = [mean if here else None for mean, here in zip(mean.confidence.means, in_mask, strict=True)]
        quality = assess(means, [model.fitted.quality for model in self.models], labels)
        if strange := unusual(image, self.models):
            # It may be wrong there, and as sure as ever: the estimate would mislead (benchmarks/trust.md).
            quality = replace(quality, dice=None, error=None, look="; ".join(filter(None, (strange, quality.look))))
        return replace(segmentation, quality=quality, algorithm=self.algorithm)

    def codes(self, image: Image, *, progress: Callable[[float], None] | None = None) -> np.ndarray:
        """The code map (`cpfnet.labels`) of what `predict` finds, uint8 on the image's grid: what a second stage sees.

        Raises:
            InputRefused, FormatError: as `predict`.
        """
        found = self.predict(image, progress=progress)
        return encode_prediction(Image(found.array[None], found.affine), self.models[0].plan.labels)

    def out_of_range(self, image: Image) -> list[str]:
        """How an image lies outside what the Models were fitted for, so that only ``force`` goes on; empty if it fits.

        Raises:
            InputRefused: it is of another kind than theirs, which nothing can force.
        """
        return self._out_of_range(*self._traces(image))

    def _out_of_range(self, image: Image, traces: Sequence[Trace]) -> list[str]:
        return [reason for model, trace in self._by_model(traces) for reason in out_of_range(image, trace, model)]

    def _traces(self, image: Image) -> tuple[Image, list[Trace]]:
        """The image in the Models' colours, and what preprocessing does to it, one Trace a group."""
        if all(map(_colourless, self.models)):
            image = preprocessing.match_channels(image, self.models[0].plan)
        return image, [preprocessing.trace_of(image, members[0].model.plan) for members in self._groups]

    def _by_model(self, traces: Sequence[Trace]) -> list[tuple[Model, Trace]]:
        """The Models in their order, each with the Trace of its group."""
        pairs = [(one, trace) for members, trace in zip(self._groups, traces, strict=True) for one in members]
        return [(one.model, trace) for one, trace in sorted(pairs, key=lambda pair: pair[0].number)]

    @property
    def algorithm(self) -> tuple[str, str]:
        """Name and version, as masks record what made them."""
        plans = [model.plan for model in self.models]
        more = f" and {len(plans) - 1} more" if len(plans) > 1 else ""
        hashes = " ".join(plan.hash[:8] for plan in plans[:3])
        name = f"{plans[0].name} ({plans[0].network.name}){more}"
        version = f"cpfnet {cpfnet.__version__}, plan {hashes}"
        return name[:64], version[:64]  # as many as DICOM takes


class _Mean:
    """The mean of the Models' probabilities, calibrated; while it is made, its confidence is counted."""

    def __init__(self, total: Slices, models: int, temperature: float, thresholds: Sequence[float], labels: Labels):
        self.total, self.models, self.temperature, self.thresholds = total, models, temperature, thresholds
        self.labels, self.confidence = labels, Confidence(labels)

    def slices(self) -> Slices:
        return Slices(self._make, self.total.count, self.total.block)

    def _make(self, start: int, stop: int) -> np.ndarray:
        probabilities = self.total.make(start, stop)
        probabilities /= self.models
        preprocessing.calibrate(probabilities, self.temperature, exclusive=self.labels.exclusive)
        self.confidence.add(probabilities, decide(iter(probabilities), self.labels, self.thresholds))
        return probabilities


def _min_component_pixels(model: Model, trace: Trace) -> list[float]:
    """Of each class, how many of an image's own pixels a component must have, as one Model sees it."""
    sizes = model.min_component_size
    pixel = trace.pixel_share if model.fitted.spacing_low is None else trace.pixel_volume
    if pixel is None:  # forced: no size is known
        if any(sizes):
            logger.warning("small components are kept: their least size is in mm³, and the image has no millimetres")
        return [0.0] * len(sizes)
    return [size / pixel for size in sizes]


def _tile(tile: int | Sequence[int], model: Model) -> tuple[int, ...]:
    """The largest piece that a Model's network is given.

    Raises:
        CpfnetError: of another number of axes, or too small for the network.
    """
    dims = model.plan.spatial.dims
    sizes = (tile,) * dims if isinstance(tile, int) else tuple(tile)
    if len(sizes) != dims:
        axes = "depth, height and width" if dims == 3 else "height and width"
        raise CpfnetError(
            f"a tile of {'×'.join(map(str, sizes))}, and the network sees {axes}",
            where=model.folder,
            fix=f"give {dims} sizes, such as {'×'.join(map(str, model.plan.spatial.patch))}, or one for all axes",
        )
    least = tuple(min(SMALLEST, size) for size in model.plan.spatial.patch)
    if _is_smaller(sizes, least):
        raise CpfnetError(
            f"a tile of {'×'.join(map(str, sizes))} is too small",
            fix=f"give sizes of at least {'×'.join(map(str, least))} pixels",
        )
    return sizes


def _is_smaller(tile: tuple[int, ...], patch: tuple[int, ...]) -> bool:
    return any(own < learnt for own, learnt in zip(tile, patch, strict=True))


def _colourless(model: Model) -> bool:
    """Were its training images grey, however they were stored?"""
    return len({(channel.low, channel.high, channel.levels) for channel in model.fitted.channels}) == 1


def check_same(a: Plan, other: Model, fix: str) -> None:
    """Refuse a Model whose output means something else than that of a plan's network.

    Raises:
        CpfnetError: other classes, label values, channels or sources, with the fix that is given.
    """
    b = other.plan
    names = [[c.name for c in plan.labels.classes] for plan in (a, b)]
    for what, one, two in (
        ("classes", *names),
        ("label values", a.labels, b.labels),
        ("channels", [c.name for c in a.channels], [c.name for c in b.channels]),
        ("sources", a.source, b.source),
    ):
        if one != two:
            raise CpfnetError(
                f"the models have different {what}: {one} against {two}",
                where=other.folder or other.plan.name,
                fix=fix,
            )
