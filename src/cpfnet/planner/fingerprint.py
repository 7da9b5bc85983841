"""What the data look like: sizes, spacings, intensities, label values, structures; from a bounded part of every set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar, cast

import numpy as np

from cpfnet import formats
from cpfnet.cores import cores
from cpfnet.data.case import Case, Dataset, add_labels, placed
from cpfnet.data.infer_labels import Values, meaning_of, values_of
from cpfnet.errors import DatasetError
from cpfnet.formats import Header
from cpfnet.image import GREY, RGB, Image, spacing_of
from cpfnet.label_values import MOST_VALUES
from cpfnet.labels import IGNORED, encode, membership, value_of
from cpfnet.messages import merge_messages
from cpfnet.planner.modality import Look, look_at
from cpfnet.planner.structure_shape import Structure, measure
from cpfnet.planning import LabelClass, Labels, Modality, Strict
from cpfnet.progress import Bar

T = TypeVar("T")

LOOKED_AT = 64
"""Images whose pixels are looked at, evenly spread over the data set; of all others only the header is read."""

MEASURED = 16
"""Labels whose structures are measured."""

SAMPLED = 20_000
"""Pixels of an image that enter the percentiles."""

PERCENTILES = (0.5, 5.0, 50.0, 95.0, 99.5)


class ChannelFingerprint(Strict):
    """Intensities of one channel, in file units.

    Attributes:
        low, high: smallest and largest value met.
        image, body, labels: `PERCENTILES` of all pixels, of the body (what is not background) and inside labels (None
            where nothing is labelled).
        typical: medians over the images of their own percentiles of the body, as shares of the highest of these:
            volumes of MR differ in scale a thousandfold.
    """

    name: str
    low: float
    high: float
    image: tuple[float, ...]
    body: tuple[float, ...]
    labels: tuple[float, ...] | None
    typical: tuple[float, ...]


class ClassFingerprint(Strict):
    """One class.

    Attributes:
        name: the class's.
        cases: share of the labels that show it.
        frequency: share of all annotated pixels.
        radius: median distance from its centre line to its edge, pixels (0 where it is nowhere).
        tubular: thin and long-drawn, such as vessels.
    """

    name: str
    cases: float
    frequency: float
    radius: float
    tubular: bool


class Fingerprint(Strict):
    """What `proposal.propose` needs to know of a data set.

    Attributes:
        cases, patients: that are labelled and not set aside as test.
        validation: of the cases, those that the data set itself sets aside for validation.
        volumes: the images have depth.
        modality: as the files say; None where they do not (only DICOM does).
        sizes: spatial size of every image; volumes along the patient's axes (inferior–superior, anterior–posterior,
            right–left).
        spacings: mm likewise; empty for images.
        channels: in order.
        values: label value, or name of a structure → labels that hold it.
        labels: the declared labels, or what the values become.
        labels_reason: why these.
        classes: in the order of ``labels.classes``.
        look: what tells modalities apart.
        readers: most readers that a case has.
        roi: cases with a region of interest.
        warnings: what was repaired while reading labels, and which structures skip slices, with the cases.
    """

    cases: int
    patients: int
    validation: int = 0
    volumes: bool
    modality: Modality | None = None
    sizes: tuple[tuple[int, ...], ...]
    spacings: tuple[tuple[float, float, float], ...]
    channels: tuple[ChannelFingerprint, ...]
    values: dict[str, int]
    labels: Labels
    labels_reason: str
    classes: tuple[ClassFingerprint, ...]
    look: Look
    readers: int
    roi: int
    warnings: tuple[str, ...] = ()

    @property
    def median_size(self) -> tuple[int, ...]:
        return tuple(int(n) for n in np.median(self.sizes, axis=0))

    @property
    def median_spacing(self) -> tuple[float, float, float] | None:
        if not self.spacings:
            return None
        depth, height, width = (float(f"{s:.4g}") for s in np.median(self.spacings, axis=0))
        return depth, height, width


@dataclass(frozen=True)
class _Pixels:
    image: np.ndarray  # (channels, n), as the two below
    body: np.ndarray
    labels: np.ndarray
    range: tuple[tuple[float, float], ...]
    counts: np.ndarray  # (classes,) pixels
    annotated: int
    structures: tuple[Structure | None, ...]
    shape: tuple[int, ...]
    look: Look


def fingerprint(dataset: Dataset, *, workers: int | None = None, progress: bool = False) -> Fingerprint:
    """Look at a data set; the same data give the same fingerprint, whatever the number of workers.

    Headers and labels of all cases are read, the pixels of `LOOKED_AT` images, one a worker at a time.

    Args:
        dataset: as `load` gives it.
        workers: threads that read; default: one a core.
        progress: show bars on standard error.

    Raises:
        DatasetError: nothing is labelled, or what is there cannot go into one plan.
        FormatError: a file cannot be read.
    """
    cases = [case for case in dataset.cases if case.labels and case.split != "test"]
    if not cases:
        raise DatasetError(
            f"none of {len(dataset.cases)} cases has a label to learn from",
            where=dataset.root,
            fix=f"{add_labels(dataset)}; `cpfnet check` says which layouts are understood",
        )

    def every(function: Callable[[Case], T], chosen: list[Case], what: str) -> list[T]:
        with ThreadPoolExecutor(workers or cores()) as pool, Bar(show=progress) as bar:
            return list(bar.track(pool.map(function, chosen), len(chosen), description=what))

    read = every(lambda case: _labels(case, dataset.labels), cases, "Labels")
    headers, values = [header for header, _ in read], [one for _, one in read]
    mixed = {header.channels for header in headers} == {GREY, RGB}  # grey all of them, but stored in two ways
    colours = RGB if mixed else headers[0].channels
    for case, header in zip(cases, headers, strict=True):
        channels = colours if header.channels == GREY else header.channels
        if len(header.shape) != len(headers[0].shape) or len(channels) != len(colours):
            raise DatasetError(
                f"{len(channels)} channels and {len(header.shape)} spatial axes, where {cases[0].id} has "
                f"{len(colours)} and {len(headers[0].shape)}",
                where=case.id,
                fix="keep images of one kind in a data set; `cpfnet check` lists the others",
            )
    labels, reason = meaning_of(dataset, values)
    volumes = len(headers[0].shape) == 3
    spread = _spread(cases, LOOKED_AT)
    measured = {case.id for case in _spread(cases, MEASURED)}
    pixels = every(lambda case: _pixels(case, labels, colours, case.id in measured), spread, "Images")
    if mixed and any(one.look.colour for one in pixels):
        raise DatasetError(
            "some pictures are stored in grey, and others have colours",
            where=dataset.root,
            fix="keep images of one kind in a data set; `cpfnet check` lists the others",
        )
    holding = Counter(number for one in values for number in one.numbers)
    naming = Counter(name for one in values for name in one.structures)
    oriented = [_along_patient(h.shape, h.affine) if h.affine is not None else (h.shape, None) for h in headers]
    return Fingerprint(
        cases=len(cases),
        patients=len({case.patient for case in cases}),
        validation=sum(case.split == "val" for case in cases),
        volumes=volumes,
        modality=_modality(cases, headers, dataset.modality),
        sizes=tuple(shape for shape, _ in oriented),
        spacings=tuple(spacing for _, spacing in oriented if spacing is not None),
        channels=_channels(dataset.channels or _names(headers[0], colours), pixels),
        values={
            str(value_of(int(v)) if float(v).is_integer() else v): n for v, n in sorted(holding.items())[:MOST_VALUES]
        }
        | dict(sorted(naming.items())[:MOST_VALUES]),
        labels=labels,
        labels_reason=reason,
        classes=tuple(_class(index, c, pixels) for index, c in enumerate(labels.classes)),
        look=Look.median([one.look for one in pixels]),
        readers=max(len(case.labels) for case in cases),
        roi=sum(case.roi is not None for case in cases),
        warnings=tuple(merge_messages((case.id, one.warnings) for case, one in zip(cases, values, strict=True))),
    )


def _labels(case: Case, declared: Labels | None) -> tuple[Header, Values]:
    """The image's header, without what only labels need (headers of thousands of slices), and what the labels hold."""
    header = formats.read_header(case.images)
    return replace(header, source=None), values_of(case, header, declared)


def _modality(cases: list[Case], headers: list[Header], declared: Modality | None) -> Modality | None:
    known = Counter(header.modality for header in headers)
    if len(known) > 1 and declared is None:
        rare = known.most_common()[-1][0]
        odd = next(case.id for case, header in zip(cases, headers, strict=True) if header.modality == rare)
        found = ", ".join(f"{count} {name or 'unknown'}" for name, count in known.most_common())
        raise DatasetError(
            f"the images are of several modalities: {found}",
            where=f"case {odd}",
            fix="choose one in dataset.yaml, such as `modality: ct`, or keep images of one kind in a data set",
        )
    return declared if len(known) > 1 else cast("Modality | None", headers[0].modality)


def _spread(cases: list[Case], count: int) -> list[Case]:
    """``count`` cases, evenly spread, or all."""
    if len(cases) <= count:
        return cases
    return [cases[i] for i in np.linspace(0, len(cases) - 1, count).round().astype(int)]


def _along_patient(shape: tuple[int, ...], affine: np.ndarray) -> tuple[tuple[int, ...], tuple[float, float, float]]:
    """Size and spacing along the patient's axes (inferior–superior, anterior–posterior, right–left)."""
    from scipy.optimize import linear_sum_assignment

    cosines = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    _, stored = linear_sum_assignment(-np.round(cosines, 6))  # patient axis (x, y, z) → stored axis
    spacing = spacing_of(affine)
    x, y, z = (int(axis) for axis in stored)
    return (shape[z], shape[y], shape[x]), (spacing[z], spacing[y], spacing[x])


def _pixels(case: Case, labels: Labels, colours: tuple[str, ...], structures: bool) -> _Pixels:
    image = formats.read(case.images).to_channels(colours)
    path = next(iter(case.labels.values()))  # the first reader's
    label = placed(path, image, labels)
    codes = encode(label, labels, where=str(path))
    member = membership(labels)
    flat, marks = image.array.reshape(len(image.array), -1), codes.ravel()
    ranges = tuple((float(c.min()), float(c.max())) for c in flat)
    if not np.isfinite(ranges).all():
        raise DatasetError(
            "holds NaN or infinite values",
            where=case.images[0],
            fix="replace them in the files; `cpfnet check` lists all of them",
        )
    rng = np.random.default_rng(0)
    inside = np.flatnonzero(np.any(member, axis=1)[marks])
    first = flat[0]
    low, high = first.min(), np.percentile(first[:: max(1, first.size // SAMPLED)], 99.5)
    body = np.flatnonzero(first > low + 0.05 * (high - low))

    def sample(where: np.ndarray | None) -> np.ndarray:
        pool = flat.shape[1] if where is None else len(where)
        chosen = np.sort(rng.choice(pool, SAMPLED, replace=False)) if pool > SAMPLED else np.arange(pool)
        return flat[:, chosen if where is None else where[chosen]].astype(np.float32)

    counts = np.bincount(marks, minlength=256)
    return _Pixels(
        image=sample(None),
        body=sample(body if body.size else None),
        labels=sample(inside),
        range=ranges,
        counts=counts @ member,
        annotated=int(counts.sum() - counts[IGNORED]),
        structures=tuple(measure(member[:, k][codes]) for k in range(len(labels.classes))) if structures else (),
        shape=codes.shape,
        look=look_at(_slice(image)),
    )


def _slice(image: Image) -> np.ndarray:
    """One picture, (channels, height, width): the image, or the middle slice."""
    return image.array if image.array.ndim == 3 else image.array[:, image.array.shape[1] // 2]


def _names(header: Header, colours: tuple[str, ...]) -> tuple[str, ...]:
    """Of the channels; the only one of DICOM is called after its modality, CT or MR."""
    named = header.modality in ("ct", "mr") and len(header.channels) == 1
    return (str(header.modality).upper(),) if named else colours


def _channels(names: tuple[str, ...], pixels: list[_Pixels]) -> tuple[ChannelFingerprint, ...]:
    def percentiles(parts: list[np.ndarray], channel: int) -> tuple[float, ...] | None:
        pooled = np.concatenate([part[channel] for part in parts])
        return tuple(float(p) for p in np.percentile(pooled, PERCENTILES)) if pooled.size else None

    out = []
    for channel, name in enumerate(names):
        image = percentiles([one.image for one in pixels], channel)
        body = percentiles([one.body for one in pixels], channel)
        assert image is not None
        assert body is not None
        out.append(
            ChannelFingerprint(
                name=name,
                low=min(one.range[channel][0] for one in pixels),
                high=max(one.range[channel][1] for one in pixels),
                image=image,
                body=body,
                labels=percentiles([one.labels for one in pixels], channel),
                typical=tuple(map(float, np.median([_shares(one.body[channel]) for one in pixels], axis=0))),
            )
        )
    return tuple(out)


def _shares(values: np.ndarray) -> np.ndarray:
    found = np.percentile(values, PERCENTILES)
    return np.asarray(found / max(abs(float(found[-1])), 1e-9))


def _class(index: int, label_class: LabelClass, pixels: list[_Pixels]) -> ClassFingerprint:
    counts = [int(one.counts[index]) for one in pixels]
    shown = [count for count in counts if count]
    found = [(s[index], one.shape) for one in pixels if (s := one.structures)]
    structures = [(structure, shape) for structure, shape in found if structure is not None]
    tubular = [structure.tubular(shape) for structure, shape in structures]
    return ClassFingerprint(
        name=label_class.name,
        cases=len(shown) / len(counts),
        frequency=sum(counts) / max(1, sum(one.annotated for one in pixels)),
        radius=float(np.median([s.radius for s, _ in structures])) if structures else 0.0,
        tubular=label_class.tubular or (bool(tubular) and sum(tubular) > len(tubular) / 2),
    )
