"""Image in, Segmentation out: one Model or several, within what they were fitted for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

import cpfnet
from cpfnet import preprocessing
from cpfnet.errors import CpfnetError, InputRefused
from cpfnet.image import Image, Segmentation
from cpfnet.inference.backends.select import backend_of
from cpfnet.inference.quality.brightness import unusual
from cpfnet.inference.quality.entropy import uncertainty as entropy
from cpfnet.inference.quality.estimate import Confidence, assess
from cpfnet.inference.tiling import Backend, batch_size, predict_array, tile_size
from cpfnet.labels import classes_present
from cpfnet.model import Model
from cpfnet.planning import Channel, Scale, Spatial, Window
from cpfnet.preprocessing import Slices, Trace, run_length
from cpfnet.preprocessing.intensity import extent
from cpfnet.preprocessing.postprocess import decide
from cpfnet.rounding import above, below

RANGE_MARGIN = 0.25
"""How far an input's values may leave those of the training images, as a share of the training images' range."""

SIGN_MARGIN = 0.02
"""How far below 0 an input's values may go, as a share of their own range, where the training images never did."""

SMALLEST = 32
"""Pixels along each axis of a tile, below which networks see nothing at their deepest level; or as many as the patch has."""

FLATTEST = 1 / 8
"""An input's values must spread over at least this share of the training images' range."""

SPACING_FACTOR = 1.5
"""How much coarser or finer than any training image an input may be."""


@dataclass(eq=False)
class _Member:
    number: int
    model: Model
    backend: Backend
    tile: tuple[int, ...] | None

    def batch(self, size: tuple[int, ...]) -> int:
        """Pieces at once of an image of this size, if nobody says how many."""
        return batch_size(self.model.plan, tile_size(self.model.plan, size[-self.model.plan.spatial.dims :], self.tile))


class Predictor:
    """One or several Models, loaded once, for any number of images; several average their probabilities.

    What was fitted (temperature, thresholds, smallest components) is applied once, to the average over tiles, copies
    (`tta`) and Models: the mean of the Models' temperatures and of their thresholds, and of the sizes the smallest, so
    that nothing goes that one of them would keep. It was fitted for one Model without copies, and averages are less
    sure of themselves: they come out too unsure rather than too sure.

    Args:
        models: trained for the same labels, channels and kind of source; their grids may differ.
        device: see `backends.pick_device`.
        backend: what runs a Model: a name for `backends.backend_of`, or what makes a backend of a Model.
        tta: average over mirrored and turned copies, too (``plan.inference.mirror``, ``quarter_turns``).
        overlap: of tiles; default: each Plan's.
        tile: largest piece given to a network, one size an axis or one for all; default: each Plan's.
        batch: pieces at once; default: each Plan's, of pieces larger than it was planned for fewer.
        say: told what the user should know, such as a batch that had to be halved.

    Raises:
        CpfnetError: no Model, Models that do not belong together, or a tile that one of them cannot have.
        WeightsError, NetworkError: see `backends.backend_of`.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        device: str = "auto",
        backend: str | Callable[[Model], Backend] = "torch",
        tta: bool = False,
        overlap: float | None = None,
        tile: int | Sequence[int] | None = None,
        batch: int | None = None,
        say: Callable[[str], None] = print,
    ):
        if not models:
            raise CpfnetError("no model was given", fix="give at least one Model")
        for model in models[1:]:
            _check_same(models[0], model)
        if overlap is not None and not 0 <= overlap < 1:
            raise CpfnetError(f"an overlap of {overlap} cannot be", fix="choose 0 … 0.9; the plan's is the default")
        if batch is not None and batch < 1:
            raise CpfnetError(f"a batch of {batch} cannot be", fix="choose 1 or more")
        make = partial(backend_of, name=backend, device=device, say=say) if isinstance(backend, str) else backend

        self.models = list(models)
        if tta and not any(model.plan.inference.mirror or model.plan.inference.quarter_turns for model in models):
            say("--tta does nothing: inference.mirror is empty and inference.quarter_turns is false")
        self.tta, self.overlap, self.batch, self.say = tta, overlap, batch, say
        tiles = [None if tile is None else _tile(tile, model) for model in models]
        if small := [m for m, own in zip(models, tiles, strict=True) if own and _is_smaller(own, m.plan.spatial.patch)]:
            patch = "×".join(map(str, small[0].plan.spatial.patch))
            say(f"The tile is smaller than the patches of training ({patch}): expect worse masks")
        # Models with the same preprocessing (folds of one plan) share it.
        self._groups: dict[tuple[tuple[Channel, ...], Spatial], list[_Member]] = {}
        for number, model in enumerate(models):
            key = (model.plan.channels, model.plan.spatial)
            self._groups.setdefault(key, []).append(_Member(number, model, make(model), tiles[number]))

    def predict(
        self,
        image: Image,
        *,
        force: bool = False,
        keep_probabilities: bool = False,
        uncertainty: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> Segmentation:
        """Segment one image.

        Args:
            image: as read.
            force: go on where the image lies outside what a Model was fitted for.
            keep_probabilities: the Segmentation carries them.
            uncertainty: the Segmentation carries the entropy of its probabilities (`inference.uncertainty`).
            progress: called with the share of the work done, 0…1.

        Returns:
            With its quality as far as it can be told (`inference.quality`, `inference.brightness`), on the image's own
            grid, with the data set's label values.

        Raises:
            InputRefused: the image is of another kind than the Models' (always), or outside what they were fitted for
                (unless ``force``), with the figures.
            FormatError: NaN or infinite values.
        """
        if all(_colourless(model) for model in self.models):
            image = preprocessing.match_channels(image, self.models[0].plan)
        traces = [preprocessing.trace(image, model.plan) for model in self.models]
        if not force:
            reasons = [
                r for model, trace in zip(self.models, traces, strict=True) for r in outside(image, trace, model)
            ]
            if reasons:
                raise refusal(reasons, image.source.place if image.source else None)
        found, labels = [model.fitted for model in self.models], self.models[0].plan.labels
        count = len(labels.classes)
        thresholds = np.mean([np.broadcast_to(one.threshold, count) for one in found], axis=0).tolist()
        temperature = float(np.mean([one.temperature for one in found]))
        least = [self._min_component_pixels(model, one) for model, one in zip(self.models, traces, strict=True)]
        confidence = Confidence(labels)
        summed, way = self._sum(image, progress)

        def make(start: int, stop: int) -> np.ndarray:
            probabilities = summed.make(start, stop)
            probabilities /= len(self.models)
            preprocessing.calibrate(probabilities, temperature, exclusive=labels.exclusive)
            confidence.add(probabilities, decide(iter(probabilities), labels, thresholds))
            return probabilities

        segmentation = preprocessing.restore(
            Slices(make, summed.count, summed.block),
            way,
            self.models[0].plan,
            threshold=thresholds,
            min_component_pixels=np.min(least, axis=0).tolist(),
            keep_probabilities=keep_probabilities,
            uncertainty=partial(entropy, exclusive=labels.exclusive) if uncertainty else None,
        )
        # What the mask lacks was not found: small components are dropped from it after the network was asked.
        there = classes_present(segmentation.array, labels)
        means = [mean if here else None for mean, here in zip(confidence.means, there, strict=True)]
        quality = assess(means, [one.quality for one in found], labels)
        if strange := unusual(image, self.models):
            # It may be wrong there, and as sure as ever: the estimate would mislead (benchmarks/trust.md).
            quality = replace(quality, dice=None, error=None, look="; ".join(filter(None, (strange, quality.look))))
        return replace(segmentation, quality=quality, algorithm=self.algorithm)

    def _min_component_pixels(self, model: Model, trace: Trace) -> list[float]:
        """Of each class, how many of an image's own pixels a component must have, as one Model sees it."""
        sizes = model.min_component_size
        pixel = trace.pixel_share if model.fitted.spacing_low is None else trace.pixel_volume
        if pixel is None:  # forced: no size is known
            if any(sizes):
                self.say("small components are kept: their least size is in mm³, and the image has no millimetres")
            return [0.0] * len(sizes)
        return [size / pixel for size in sizes]

    @property
    def algorithm(self) -> tuple[str, str]:
        """Name and version, as masks record what made them."""
        plans = [model.plan for model in self.models]
        more = f" and {len(plans) - 1} more" if len(plans) > 1 else ""
        hashes = " ".join(plan.hash[:8] for plan in plans[:3])
        name, version = (
            f"{plans[0].name} ({plans[0].network.name}){more}",
            f"cpfnet {cpfnet.__version__}, plan {hashes}",
        )
        return name[:64], version[:64]  # as many as DICOM takes

    def _sum(self, image: Image, progress: Callable[[float], None] | None) -> tuple[Slices, Trace]:
        """Summed probabilities of all Models: on the network's grid where that is the same for all, else on the image's own."""
        shares = [0.0] * len(self.models)

        def report(number: int, share: float) -> None:
            shares[number] = share
            if progress is not None:
                progress(sum(shares) / len(shares))

        sums = [self._sum_of(members, image, report) for members in self._groups.values()]
        if len(sums) == 1:
            return sums[0]
        first = sums[0][1]
        way = replace(first, grid=first.oriented)
        # Run by run where all see the volume's slices in one order, else all of it at once.
        alike = all((own.axes, own.flips) == (first.axes, first.flips) for _, own in sums)
        length = run_length(self.models[0].plan.labels.outputs, way.grid) if alike else None

        def make(start: int, stop: int) -> np.ndarray:
            total = np.zeros((self.models[0].plan.labels.outputs, stop - start, *way.grid[1:]), np.float32)
            for slices, own in sums:
                planes = preprocessing.resample_back(slices, own, *((start, stop) if alike else (0, own.oriented[0])))
                total += way.orient(own.restore_orientation(planes))
            return total

        return Slices(make, way.grid[0], length), way

    def _sum_of(
        self, members: list[_Member], image: Image, report: Callable[[int, float], None]
    ) -> tuple[Slices, Trace]:
        """Summed probabilities of Models that share preprocessing, on their grid."""
        plan = members[0].model.plan
        way = preprocessing.trace(image, plan)
        count, block, beside = way.grid[0], None, 0
        if len(way.grid) > plan.spatial.dims:  # what sees one slice after another need not hold all
            batch = self.batch or max(member.batch(way.grid) for member in members)
            block = batch * math.ceil(run_length(plan.labels.outputs, way.grid) / batch)
            beside = plan.spatial.neighbours
        pixels, way = preprocessing.prepare(image, plan, block=block)

        def make(start: int, stop: int) -> np.ndarray:
            first, last = max(start - beside, 0), min(stop + beside, count)
            array = pixels(first, last)
            total: np.ndarray | None = None
            for member in members:

                def done(share: float, number: int = member.number) -> None:
                    report(number, (start + share * (stop - start)) / count)

                planes = predict_array(
                    member.backend,
                    array,
                    member.model.plan,
                    overlap=self.overlap,
                    tta=self.tta,
                    tile=member.tile,
                    batch=self.batch,
                    run=slice(start - first, stop - first),
                    progress=done,
                )
                if total is None:
                    total = planes
                else:
                    total += planes
            assert total is not None  # groups are never empty
            return total

        return Slices(make, count, block), way


def _tile(tile: int | Sequence[int], model: Model) -> tuple[int, ...]:
    """The largest piece that a Model's network is given.

    Raises:
        CpfnetError: of another number of axes, or too small for a network.
    """
    dims = model.plan.spatial.dims
    sizes = (tile,) * dims if isinstance(tile, int) else tuple(tile)
    given = "×".join(map(str, sizes))
    if len(sizes) != dims:
        axes = "depth, height and width" if dims == 3 else "height and width"
        raise CpfnetError(
            f"a tile of {given}, and the network sees {axes}",
            where=model.folder,
            fix=f"give {dims} sizes, such as {'×'.join(map(str, model.plan.spatial.patch))}, or one for all axes",
        )
    least = tuple(min(SMALLEST, size) for size in model.plan.spatial.patch)
    if _is_smaller(sizes, least):
        raise CpfnetError(
            f"a tile of {given} is too small", fix=f"give sizes of at least {'×'.join(map(str, least))} pixels"
        )
    return sizes


def _is_smaller(tile: tuple[int, ...], patch: tuple[int, ...]) -> bool:
    return any(own < learnt for own, learnt in zip(tile, patch, strict=True))


def _check_same(first: Model, other: Model) -> None:
    """Refuse Models whose probabilities mean different things."""
    a, b = first.plan, other.plan
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
                fix="average only models that were trained for the same task",
            )


def refusal(reasons: Sequence[str], where: Path | None) -> InputRefused:
    """The error for an image that lies outside what a Model was fitted for."""
    return InputRefused(
        "; ".join(dict.fromkeys(reasons)),
        where=where,
        fix="check that this is the kind of image the model was trained on; --force goes on all the same",
    )


def suits(modality: str | None, wanted: str) -> bool:
    """May an image of this modality, None where it is unknown, be one of those that a Model is for?

    What DICOM calls anything else (nuclear medicine, a photograph) is neither CT nor MR; it may be a scanned film or
    a microscope's picture.
    """
    if modality is None or "other" in (modality, wanted):
        return modality is None or wanted not in ("ct", "mr")
    return modality == wanted


def modality_mismatch(modality: str | None, wanted: str) -> str | None:
    """How an image's modality, where it is known, is not the Plan's; None where it is."""
    return None if suits(modality, wanted) else f"modality {modality}, and the model was fitted for {wanted}"


def _colourless(model: Model) -> bool:
    """Were its training images grey, however they were stored?"""
    return len({(channel.low, channel.high, channel.levels) for channel in model.fitted.channels}) == 1


def outside(image: Image, trace: Trace, model: Model) -> list[str]:
    """How an image lies outside what a Model was fitted for; empty where it does not.

    Modality, where the format knows it. Values: an image that is constant; and where the Plan's intensity is in
    absolute units (`Window`, `Scale`), values beyond both that intensity's own range and the training images'
    (`RANGE_MARGIN`), or spread over much less (`FLATTEST`); elsewhere, where the intensity adapts to each image,
    negative values where the training images had none (`SIGN_MARGIN`); values wholly beside the training images'.
    Spacing: coarser or finer than the training images (`SPACING_FACTOR`).

    Args:
        image: as read.
        trace: from `preprocessing.trace`.
        model: plan and fitted.

    Returns:
        Sentences with both figures.
    """
    plan, fitted = model.plan, model.fitted
    other = modality_mismatch(image.modality, plan.modality)
    found = [] if other is None else [other]
    for stored, channel, seen in zip(image.array, plan.channels, fitted.channels, strict=True):
        low, high = extent(stored)
        span = seen.high - seen.low
        least, most = seen.low - RANGE_MARGIN * span, seen.high + RANGE_MARGIN * span
        flattest = 0.0
        match channel.intensity:
            case Window(low=first, high=last):
                least, most, flattest = min(least, first), max(most, last), FLATTEST * span
            case Scale(full=full):
                least, most, flattest = min(least, 0), max(most, full), FLATTEST * span
            case _:  # adapts to each image: its scale may differ, but a CT is no MR image
                least, most = (-SIGN_MARGIN * (high - low) if seen.low >= 0 else -np.inf), np.inf
        apart = below(high, seen.low) or above(low, seen.high)
        constant = span > 0 and stored.min() == stored.max()
        if constant or apart or below(low, least) or above(high, most) or below(high - low, flattest):
            found.append(
                f"channel {channel.name!r}: values {low:g} … {high:g} (0.5 % and 99.5 % quantiles), and the model was fitted"
                f" for {seen.low:g} … {seen.high:g}"
            )
    if fitted.spacing_low is not None and fitted.spacing_high is not None:
        lowest, highest = (
            " × ".join(f"{s:.3g}" for s in limits) for limits in (fitted.spacing_low, fitted.spacing_high)
        )
        limits = f"the model was fitted for {lowest} … {highest} mm (depth × height × width)"
        if trace.spacing is None:
            found.append(f"no spacing in mm, and {limits}")
        elif any(
            below(s, low / SPACING_FACTOR) or above(s, high * SPACING_FACTOR)
            for s, low, high in zip(trace.spacing, fitted.spacing_low, fitted.spacing_high, strict=True)
        ):
            found.append(f"spacing {' × '.join(f'{s:.3g}' for s in trace.spacing)} mm, and {limits}")
    return found
