"""From the values of a file to the values that a network sees: one function for each kind of `planning.Intensity`.

All of them take one channel as stored, of any real dtype and shape, and return float32. Statistics belong to the image,
not to the order of its stored axes, so the functions give the same for every orientation of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from cpfnet.errors import FormatError
from cpfnet.planning import Intensity, Local, MinMax, Percentiles, Scale, Window, ZScore
from cpfnet.preprocessing.local_contrast import field_of_view, local_contrast

CONSTANT_BORDER = 0.25
"""A value is padding if it fills more than this share of the two border faces of an axis."""

LEVELS_PIXELS = 2**22
"""The approximate number of pixels of an image that `levels` uses."""

AIR_BORDER = 0.7
"""Air surrounds the body if it fills more than this share of the two border faces of an axis …"""

AIR_RATIO = 0.25
"""… and its mean, counted from the minimum, is less than this share of the body's."""


def normalise(
    channel: np.ndarray, intensity: Intensity, *, inside: np.ndarray | None = None, where: object = None
) -> np.ndarray:
    """One whole channel by its `Intensity`: see `normaliser`."""
    return normaliser(channel, intensity, inside=inside, where=where)(channel)


def normaliser(
    channel: np.ndarray, intensity: Intensity, *, inside: np.ndarray | None = None, where: object = None
) -> Callable[[np.ndarray], np.ndarray]:
    """The function from one channel's stored values to those that the network sees.

    Statistics are taken here, of the whole channel. The function that is returned can then take one part at a time;
    only that of `Local`, which uses the surroundings of each pixel, needs the whole.

    Args:
        channel: values as stored, ``([depth,] height, width)``.
        intensity: the Plan's, for this channel.
        inside: the image's `local_contrast.field_of_view`, if a channel is `Local`; default: that of the channel alone.
        where: file or channel, for the message.

    Returns:
        Stored values → float32, of the same shape.

    Raises:
        FormatError: NaN or infinite values. They are refused and never filled in: only the owner of the file can know
            what they stand for (outside the scan, failed reconstruction).
    """
    if channel.dtype == np.bool_:
        channel = channel.view(np.uint8)
    if channel.dtype.kind == "f":
        bad = channel.size - sum(int(np.count_nonzero(np.isfinite(plane))) for plane in channel)
        if bad:
            raise FormatError(
                f"{bad} of {channel.size} values ({bad / channel.size:.2%}) are NaN or infinite",
                where=None if where is None else str(where),
                fix="replace them in the file by what they mean, for example the value of air",
            )
    match intensity:
        case Window():
            return partial(window, low=intensity.low, high=intensity.high)
        case ZScore():
            return _zscore(channel)
        case Percentiles():
            return _percentiles(channel, intensity.low, intensity.high)
        case MinMax():
            return _minmax(channel)
        case Scale():
            return partial(scale, full=intensity.full, mean=intensity.mean, std=intensity.std)
        case Local():
            inside = field_of_view(channel[None]) if inside is None else inside
            return partial(local_contrast, radius=intensity.radius, inside=inside)


def window(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """(x − low) / (high − low), clipped to 0…1."""
    out = _affine(x, low, high - low)
    return np.clip(out, 0, 1, out=out)


def scale(x: np.ndarray, full: float, mean: float, std: float) -> np.ndarray:
    """(x / full − mean) / std."""
    return _affine(x, full * mean, full * std)


def _zscore(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """(x − mean) / SD, both over the `body`; 0 everywhere in an image whose body is constant."""
    inside = body(x)
    mean = float(np.mean(x, where=inside, dtype=np.float64))
    deviation = float(np.std(x, where=inside, dtype=np.float64))
    if deviation <= max(1e-6 * abs(mean), float(np.finfo(np.float32).tiny)):  # constant up to rounding
        return _zeros
    return partial(_affine, offset=mean, divisor=deviation)


def _percentiles(x: np.ndarray, low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """`window` between two percentiles of the image itself.

    Padding (see `padding`) does not count: otherwise both percentiles would be the value of a wide black border.
    Percentiles are used instead of extremes, because single bright speckles must not set the scale. An image that is
    constant between the two percentiles is scaled by `_minmax`.
    """
    values = x
    for value in padding(x):
        values = values[values != value]
    if values.size:
        first, last = _quantiles(values, (low, high))
        if first < last:
            return partial(window, low=first, high=last)
    return _minmax(x)


def _minmax(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Minimum → 0, maximum → 1; a constant image → 0."""
    low, high = float(x.min()), float(x.max())
    return partial(window, low=low, high=high) if low < high else _zeros


def _zeros(x: np.ndarray) -> np.ndarray:
    return np.zeros(x.shape, np.float32)


def _quantiles(x: np.ndarray, percent: Sequence[float]) -> list[float]:
    """`np.percentile`, for integers by counting them.

    Counting is faster than sorting, makes no copy of a large volume, and does not overflow between distant neighbours.
    """
    lowest, highest = x.min(), x.max()
    if x.dtype.kind not in "iu" or int(highest) - int(lowest) >= 2**16:
        return [float(value) for value in np.percentile(x, percent)]
    lowest = int(lowest)
    counts = np.zeros(int(highest) - lowest + 1, dtype=np.int64)
    for part in np.array_split(x, math.ceil(x.size / 2**20)):
        counts += np.bincount(part.ravel().astype(np.intp) - lowest, minlength=len(counts))
    below = np.cumsum(counts)
    out = []
    for at in np.asarray(percent) / 100 * (x.size - 1):
        low, high = (int(np.searchsorted(below, k, side="right")) + lowest for k in (math.floor(at), math.ceil(at)))
        past = at - math.floor(at)
        out.append(float(low + (high - low) * past if past < 0.5 else high - (high - low) * (1 - past)))
    return out


def extent(x: np.ndarray) -> tuple[float, float]:
    """The 0.5 % and 99.5 % quantiles, in file units: a Model compares its inputs' with those of its training images."""
    low, high = _quantiles(x.view(np.uint8) if x.dtype == np.bool_ else x, (0.5, 99.5))
    return low, high


def levels(x: np.ndarray, intensity: Intensity) -> tuple[float, float, float] | None:
    """How bright an image is: the 0.5 %, 50 % and 99.5 % quantiles inside the `body`, in file units.

    Values are first clipped to a `Window`. Of large images, a regular sample is taken (`LEVELS_PIXELS`).

    Returns:
        None if the intensity adapts to each image, so that its brightness does not matter.
    """
    if not isinstance(intensity, (Window, Scale)):
        return None
    step = math.ceil((x.size / LEVELS_PIXELS) ** (1 / x.ndim))
    x = x[(slice(None, None, step),) * x.ndim]
    if x.dtype == np.bool_:
        x = x.view(np.uint8)
    if isinstance(intensity, Window):
        x = np.clip(x, intensity.low, intensity.high)
    low, median, high = np.percentile(x[body(x)], (0.5, 50, 99.5))
    return float(low), float(median), float(high)


def body(x: np.ndarray) -> np.ndarray:
    """Where an MR image shows the patient: everything except the background. Background is

    - padding (`padding`): skull-stripped and zero-filled images; and
    - air: of the rest, values below Otsu's threshold, if along some axis they (and padding) fill the border of the
      image (`AIR_BORDER`), and if they are dark compared with the others (`AIR_RATIO`). In a crop inside the body
      neither is true, and all of it counts.

    Returns:
        bool, of the same shape, True for at least one pixel.
    """
    from skimage.filters import threshold_otsu

    inside = np.ones(x.shape, dtype=bool)
    for value in padding(x):
        inside &= x != value
    values = x[inside]
    if not values.size:
        return np.ones(x.shape, dtype=bool)
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    low, high = float(x.min()), float(np.percentile(values, 99.5))
    lowest = float(values.min())
    if lowest >= high:
        return inside
    if values.dtype.kind == "f":
        kind = values.dtype.type
        ulp = max(np.spacing(kind(max(-lowest, high))), np.finfo(kind).tiny)
        if high - lowest < 512 * float(ulp):
            return inside  # constant up to rounding: too small a range for the 256 steps of a histogram
    threshold = threshold_otsu(np.minimum(values, high))
    dark = values <= threshold
    surrounds = any(np.mean(faces) > AIR_BORDER for faces in _faces((x <= threshold) | ~inside))
    if surrounds and values[dark].mean(dtype=np.float64) - low < AIR_RATIO * (
        values[~dark].mean(dtype=np.float64) - low
    ):
        inside &= x > threshold
    return inside


def padding(x: np.ndarray) -> set[float]:
    """Values that fill a border: for each axis, the commonest value of its two faces, if it is common enough.

    Returns:
        At most one value for each axis; none for an image without a constant border.
    """
    constant: set[float] = set()
    for faces in _faces(x):
        values, counts = np.unique(faces, return_counts=True)
        if counts.max() > CONSTANT_BORDER * faces.size:
            constant.add(values[counts.argmax()].item())
    return constant


def _faces(x: np.ndarray) -> Iterator[np.ndarray]:
    """The first and last plane along each axis; axes of one or two planes have no border."""
    for axis in range(x.ndim):
        if x.shape[axis] > 2:
            yield np.take(x, (0, -1), axis)


def _affine(x: np.ndarray, offset: float, divisor: float) -> np.ndarray:
    """(x − offset) / divisor as float32, computed so that no stored digit is lost."""
    wide = np.result_type(x.dtype, np.float32)
    out = np.subtract(x, wide.type(offset), dtype=wide)
    out /= wide.type(divisor)
    return out.astype(np.float32, copy=False)
