"""The Plan: everything that the user approves before training, as one validated, hashed document.

It is the one contract between data, training and inference: what the Plan says, no other module derives again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from cpfnet.text import brief, counted, printable

VolumeMode = Literal["2d", "3d"]
"""What volumes can be planned for, whatever suits them."""

Modality = Literal[
    "ct", "mr", "pet", "fundus", "dermoscopy", "endoscopy", "microscopy", "oct", "xray", "ultrasound", "other"
]

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=1, le=2**16)]


def _large_enough(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Volumes may have few slices; a plane needs 32 pixels for five halvings."""
    for axis, size in enumerate(sizes):
        least = 8 if len(sizes) == 3 and axis == 0 else 32
        if size < least:
            raise ValueError(f"{size} is too small: {'the depth needs' if least == 8 else 'give'} at least {least}")
    return sizes


Sizes = Annotated[tuple[int, ...], AfterValidator(_large_enough)]


COLOURS = 0x1000000
"""Label values are integers below this; a colour in one number is this + 0xRRGGBB (see `cpfnet.labels`)."""


def _label_value(value: Any) -> Any:
    """An integer, quoted or not, or a lower-case colour; a colour with R = G = B is its grey value, as in the files."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,9}", value.strip()):
        value = int(value)
    if isinstance(value, bool) or (isinstance(value, str) and not re.fullmatch(r"#[0-9a-f]{6}", value.lower())):
        raise ValueError(f"{value!r} is neither an integer nor a colour such as '#ff0000'")
    if isinstance(value, int) and not -COLOURS <= value < COLOURS:
        raise ValueError(f"{value} is no label value: these lie between {-COLOURS} and {COLOURS - 1}; renumber")
    if isinstance(value, str):
        grey = int(value[1:3], 16)
        return grey if int(value[1:], 16) == grey * 0x010101 else value.lower()
    return value


class Strict(BaseModel):
    """Base of all settings: unknown keys are refused, values cannot change after checking."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    LATER: ClassVar[frozenset[str]] = frozenset()
    """Settings that earlier plans did not have: at their default they are not in the hash, which stays what it was."""


def one_or_several(value: Any) -> Any:
    """A single value as a list of one."""
    return value if value is None or isinstance(value, (list, tuple)) else (value,)


class Code(Strict):
    """A coded concept, as DICOM uses them (PS3.3, section 8)."""

    value: str = Field(min_length=1, max_length=16, description="such as 10200004")
    scheme: str = Field("SCT", min_length=1, max_length=16, description="coding scheme: SCT is SNOMED CT")
    meaning: str = Field(min_length=1, max_length=64, description="in words, such as Liver")


class LabelClass(Strict):
    """One structure to segment: the file values, or the names of DICOM segments and ROIs, that mean it."""

    name: str = Field(min_length=1)
    values: tuple[int | str, ...] = Field(min_length=1, description="file values (integers) or colours ('#rrggbb')")
    names: tuple[str, ...] = Field(
        (),
        description="names of DICOM segments and ROIs that mean it beside its own name; * and ? match, case does not "
        "count",
    )
    write: int | str | None = Field(None, description="value written in predictions; default: the first of `values`")
    tubular: bool = Field(False, description="thin and branching (vessels): clDice and thin recall are reported too")
    category: Code | None = Field(None, description="DICOM: segmented property category; null: by its name")
    type: Code | None = Field(None, description="DICOM: segmented property type; null: by its name")
    colour: str | None = Field(
        None, pattern="^#[0-9a-f]{6}$", description="DICOM: recommended display colour; null: chosen"
    )

    _values = field_validator("values", mode="before")(
        lambda v: tuple(map(_label_value, v)) if isinstance(v, (list, tuple)) else (_label_value(v),)
    )
    _write = field_validator("write", mode="before")(_label_value)

    @property
    def written(self) -> int | str:
        return self.values[0] if self.write is None else self.write

    def means(self, structure: str) -> bool:
        """Is this the name of a DICOM segment or ROI of the class? Case and surrounding blanks do not count."""
        found = structure.strip().casefold()
        patterns = (name.casefold().replace("[", "[[]") for name in self.names)  # a bracket is a bracket
        return self.is_called(structure) or any(fnmatchcase(found, pattern) for pattern in patterns)

    def is_called(self, structure: str) -> bool:
        """Is this the class's own name?"""
        return structure.strip().casefold() == self.name.strip().casefold()


class Labels(Strict):
    """How file values become classes and go back.

    Exclusive classes (each pixel has one) train with a softmax over background and classes. With ``exclusive: false``
    classes are regions that may overlap (whole tumour ⊃ core): a value may stand in several, each region is a sigmoid.
    Predictions are written with the value of exactly the regions that a pixel is in, where there is one; else painted
    in the order of `classes`, so the innermost comes last, each region as its value that no later and fewest other
    regions hold.
    """

    background: tuple[int | str, ...] = Field((0,), description="file values that mean none of the classes")
    exclusive: bool = Field(True, description="false: regions that may overlap")
    # Codes are one byte, two are taken (cpfnet.labels).
    classes: tuple[LabelClass, ...] = Field(min_length=1, max_length=253)
    ignore: tuple[int | str, ...] = Field(
        (), description="file values for 'not annotated': in neither loss nor metrics"
    )
    threshold: float | None = Field(
        None,
        description="for soft masks of one class: file values (of colours the brightest channel) above it are "
        "the class",
    )
    fraction: Fraction = Field(
        0.5, description="DICOM segmentations with fractions: a pixel belongs to a segment above this"
    )
    overlap: Literal["first", "last"] | None = Field(
        None,
        description="exclusive classes drawn over each other in DICOM labels: which of them, in the order of `classes`"
        ", has the pixel; null refuses",
    )
    interpolate_contours: bool = Field(
        False,
        description="true: slices that a structure skips between two others are filled by shape; false: they are "
        "background, and `check` names them",
    )

    _values = field_validator("background", "ignore", mode="before")(
        lambda v: tuple(map(_label_value, v)) if isinstance(v, (list, tuple)) else (_label_value(v),)
    )

    @field_validator("classes")
    @classmethod
    def _write_regions(cls, classes: tuple[LabelClass, ...], info: ValidationInfo) -> tuple[LabelClass, ...]:
        """Choose what each region is written as, so that a written prediction says which regions a pixel is in."""
        if info.data.get("exclusive", True):
            return classes
        chosen = []
        for index, c in enumerate(classes):
            inner = {v for later in classes[index + 1 :] for v in later.values}
            own = [v for v in c.values if v not in inner]
            if not own:
                raise ValueError(
                    f"region {c.name!r} has no value of its own beside the later ones; "
                    "order them from the outermost to the innermost"
                )
            if c.write is not None and c.write not in own:
                raise ValueError(f"region {c.name!r} can be written as {own}, not as {c.write!r}")
            alone = min(own, key=lambda value: sum(value in other.values for other in classes))
            chosen.append(c.model_copy(update={"write": alone if c.write is None else c.write}))
        return tuple(chosen)

    @model_validator(mode="after")
    def _consistent(self) -> Labels:
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError(f"class names repeat: {names}")
        taken: dict[int | str, str] = {}
        groups = [("background", self.background), ("ignore", self.ignore)]
        groups += [(f"class {c.name!r}", c.values) for c in self.classes] if self.exclusive else []
        for owner, values in groups:
            for value in values:
                if value in taken:
                    raise ValueError(f"value {value!r} belongs to {taken[value]} and to {owner}")
                taken[value] = owner
        for c in self.classes:
            for value in c.values:
                if value in self.background or value in self.ignore:
                    raise ValueError(f"value {value!r} of class {c.name!r} is also background or ignored")
        written = [c.written for c in self.classes]
        for c in self.classes:
            if c.written in self.background or c.written in self.ignore:
                raise ValueError(f"class {c.name!r} would be written as {c.written!r}, which is background or ignored")
        if len(set(written)) != len(written):
            raise ValueError(f"two classes would be written as the same value: {written}; set `write`")
        if self.threshold is not None and len(self.classes) != 1:
            raise ValueError("`threshold` is for soft masks of exactly one class")
        return self

    def meant(self, structure: str) -> frozenset[int]:
        """Indices of the classes that a DICOM segment or ROI of this name belongs to.

        Of exclusive classes the one of this very name has it, whatever the patterns of others; regions share it.
        """
        own = frozenset(k for k, c in enumerate(self.classes) if c.is_called(structure))
        return own if own and self.exclusive else frozenset(k for k, c in enumerate(self.classes) if c.means(structure))

    @property
    def outputs(self) -> int:
        """Planes the network gives: background and classes with a softmax, or one a region with sigmoids."""
        return len(self.classes) + 1 if self.exclusive else len(self.classes)


def _ordered(self: Any) -> Any:
    if not self.low < self.high:
        raise ValueError(f"low ({self.low}) must be below high ({self.high})")
    return self


class Window(Strict):
    """Clip to [low, high] in file units (HU), then to [0, 1]."""

    kind: Literal["window"] = "window"
    low: float = -1000.0
    high: float = 2000.0

    _order = model_validator(mode="after")(_ordered)


class ZScore(Strict):
    """(x − mean) / SD over the body (values above the background of the same image)."""

    kind: Literal["zscore"] = "zscore"


class Percentiles(Strict):
    """Clip to two percentiles of the image itself, then to [0, 1]; a constant border does not count."""

    kind: Literal["percentiles"] = "percentiles"
    low: Annotated[float, Field(ge=0, lt=100)] = 0.5
    high: Annotated[float, Field(gt=0, le=100)] = 99.5

    _order = model_validator(mode="after")(_ordered)


class MinMax(Strict):
    """The image's own minimum and maximum to [0, 1]; a constant image becomes 0."""

    kind: Literal["minmax"] = "minmax"


class Scale(Strict):
    """(x / full − mean) / std: full range to [0, 1], then a data set's statistics (ImageNet's when pretrained)."""

    kind: Literal["scale"] = "scale"
    full: Positive = 255.0
    mean: float = 0.0
    std: Positive = 1.0


class Local(Strict):
    """(x − mean) / SD of each pixel's surroundings, in plain images: uneven light goes, thin structures stay."""

    kind: Literal["local"] = "local"
    radius: Annotated[float, Field(gt=0, le=1)] = 0.035


Intensity = Annotated[Window | ZScore | Percentiles | MinMax | Scale | Local, Field(discriminator="kind")]


class Channel(Strict):
    """One input channel and what happens to its values."""

    name: str
    intensity: Intensity


class Spatial(Strict):
    """How an Image's grid becomes the network's."""

    mode: Literal["2d", "2.5d", "3d"] = "2d"
    neighbours: int = Field(0, ge=0, description="2.5d: slices on each side that enter as further channels")
    slices: Literal["axial", "coronal", "sagittal", "stored"] = Field(
        "stored", description="volumes: the plane of a slice; reorients exactly"
    )
    spacing: tuple[Positive | None, Positive, Positive] | None = Field(
        None,
        description="mm (depth, height, width) to resample to; null keeps the grid, and in its first place the slices",
    )
    size: tuple[Pixels, Pixels] | None = Field(
        None, description="images without mm: (height, width) to resize to; null keeps the grid"
    )
    longest: Pixels | None = Field(
        None,
        description="images without mm: pixels that the longer side gets, the other in proportion; or size, or neither",
    )
    patch: Sizes = Field(
        description="training patch, ([depth,] height, width); each at least 32, but for the depth of dynunet: at "
        "least 8"
    )

    @model_validator(mode="after")
    def _fits(self) -> Spatial:
        if len(self.patch) != self.dims:
            raise ValueError(f"mode {self.mode} needs a patch of {self.dims} sizes, got {list(self.patch)}")
        if (self.neighbours > 0) != (self.mode == "2.5d"):
            raise ValueError(
                f"neighbours = {self.neighbours} does not fit mode {self.mode}: 2.5d needs at least 1, others 0"
            )
        if self.mode == "3d" and self.spacing is not None and self.spacing[0] is None:
            raise ValueError("spacing without a distance of slices is for 2d and 2.5d: 3d sees in mm along all axes")
        if self.size is not None and self.longest is not None:
            raise ValueError("size and longest both say how large an image gets; set one of them to null")
        return self

    @property
    def dims(self) -> Literal[2, 3]:
        return 3 if self.mode == "3d" else 2


class NetworkPlan(Strict):
    """Which network, by the name it is registered under."""

    name: str = Field(
        "cpfnet",
        description="cpfnet, cpfnet-hr, cpfnet-guide, unet, attention-unet, unet++, segresnet, dynunet, dynunet-res, "
        "mednext, resnet34-unet, or one of your own: registered, of an installed package, or MODULE:NAME",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the network")
    weights: str = Field(
        "imagenet",
        description="'imagenet', 'none' (from scratch), or a weight file (relative to where the command runs)",
    )

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: str) -> str:
        # A bare word is hardly a file; what is one may lie on the machine that trains alone.
        if weights not in ("imagenet", "none") and not Path(weights).suffix and Path(weights).name == weights:
            raise ValueError(
                f"{weights!r} is neither 'imagenet' nor 'none' nor a weight file (such as ./{weights} or {weights}.pth)"
            )
        return weights

    @field_validator("options")
    @classmethod
    def _own(cls, options: dict[str, Any]) -> dict[str, Any]:
        for key in ("name", "in_channels", "classes", "spatial_dims"):
            if key in options:
                raise ValueError(
                    f"{key!r} is no option: `network.name`, `channels`, `labels` and `spatial.mode` say it"
                )
        return options


class LossPlan(Strict):
    name: str = Field(
        "dice+ce",
        description="dice+ce, dice, ce, focal, tversky, dice+cldice, dice+ce+cldice or dice+boundary, or "
        "one of your own: registered, of an installed package, or MODULE:NAME",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the loss, such as gamma")


class Augmentation(Strict):
    """Probability and strength of each random change; 0 switches one off."""

    LATER = frozenset({"scale_factors", "low_resolution", "inverted_gamma"})

    elastic: Fraction = Field(0.3, description="probability of an elastic deformation")
    elastic_alpha: float = Field(1000.0, ge=0, description="the guide's alpha: displacement gain, pixels at full size")
    elastic_sigma: Positive = Field(30.0, description="the guide's sigma: smoothing of the displacement field, pixels")
    rotation: Fraction = Field(0.5, description="probability of a rotation")
    rotation_degrees: float = Field(15.0, ge=0, le=180, description="largest angle, either way")
    scale: Fraction = Field(0.3, description="probability of another size")
    scale_range: float = Field(0.2, ge=0, le=0.5, description="0.2 is 0.8 … 1.2")
    scale_factors: tuple[Positive, Positive] | None = Field(
        None,
        description="smallest and largest size in place of scale_range, such as [0.7, 1.4]; all ratios are as likely",
    )
    flips: tuple[Literal["depth", "height", "width"], ...] = Field(
        (), description="axes along which anatomy may be mirrored"
    )
    quarter_turns: bool = Field(
        False,
        description="for images that have no upright: turned in the plane by 0°, 90°, 180° or 270°, equally often, "
        "without interpolation; oblong patches by 0° or 180°",
    )
    illumination: Fraction = Field(
        0.0,
        description="probability of uneven light: a smooth field that brightens and darkens, as in fundus photographs",
    )
    colour: Fraction = Field(0.0, description="probability that each channel has its own shift and contrast")
    channel_dropout: dict[str, Fraction] = Field(
        default_factory=dict,
        description="for channels by name, the probability that one shows nothing but its mean; one at least is kept",
    )
    low_resolution: Fraction = Field(0.0, description="probability, for each channel, of half to all of its resolution")
    inverted_gamma: Fraction = Field(0.0, description="probability of gamma on the negative, as nnU-Net has it")
    gamma: Fraction = Field(0.3, description="probability of brighter or darker mid-tones")
    brightness: Fraction = Field(0.3, description="probability of a shift of all values")
    contrast: Fraction = Field(0.3, description="probability of more or less contrast")
    blur: Fraction = Field(0.1, description="probability of a Gaussian blur")
    noise: Fraction = Field(0.1, description="probability of Gaussian noise")

    @field_validator("scale_factors")
    @classmethod
    def _rising(cls, factors: tuple[float, float] | None) -> tuple[float, float] | None:
        if factors is not None and not factors[0] <= factors[1]:
            raise ValueError(f"the smallest size comes first; found {list(factors)}")
        return factors


class ValidationPlan(Strict):
    """What is validated after each epoch, so that this takes a small share of the run: the same part every time."""

    cases: Count = Field(
        description="cases after each epoch, chosen once and so that every class is among them; all where there "
        "are fewer"
    )
    pieces: Count = Field(
        description="of each of these: tiles in 3-D, slices of volumes in 2-D, images or their tiles; chosen once, "
        "half of them on structures"
    )
    whole: Count | None = Field(
        None,
        description="cases that the best Model segments whole at the end, for its scores and what is fitted; null: all",
    )


class TrainingPlan(Strict):
    LATER = frozenset({"encoder_rate", "frozen_statistics", "validation"})

    epochs: Count = Field(100, description="validation follows each; the best is kept")
    samples: Count = Field(description="patches drawn per epoch")
    batch: Count = Field(4, description="patches in memory at once")
    accumulate: Count = Field(1, description="batches per optimiser step")
    foreground: Fraction = Field(0.5, description="share of patches centred on a labelled structure")
    loss: LossPlan = LossPlan()
    optimiser: Literal["sgd", "adamw"] = Field("adamw", description="the paper: sgd with learning_rate 0.01")
    learning_rate: Positive = Field(1e-3, description="the highest, after the warm-up")
    encoder_rate: float = Field(
        1.0, gt=0, le=1, description="share of the learning rate that a pretrained encoder gets"
    )
    frozen_statistics: bool = Field(
        False, description="true: batch normalisation of a pretrained encoder keeps the statistics it came with"
    )
    momentum: Fraction = Field(0.9, description="of sgd; adamw has its own")
    weight_decay: float = Field(1e-4, ge=0, description="pull of the weights towards zero")
    warmup: int = Field(0, ge=0, description="optimiser steps of linear warm-up; at most a tenth of all steps")
    schedule: Literal["poly", "cosine"] = Field(
        "poly",
        description="how the learning rate falls: lr · (1 − step/steps)^power, or half a cosine after the warm-up",
    )
    power: Positive = Field(0.9, description="of the poly schedule")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the weights' moving average; null: none")
    clip: Positive | None = Field(12.0, description="largest gradient norm; null: no limit")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the hardware has it, else fp16 on CUDA"
    )
    seed: int = Field(0, ge=0, description="of all that is random")
    workers: int = Field(
        2, ge=0, description="processes that prepare samples, for each device; never more than there are cores"
    )
    augmentation: Augmentation = Augmentation()
    validation: ValidationPlan | None = Field(
        None, description="null: all cases, whole, after each epoch; else a fixed part of them"
    )


class InferencePlan(Strict):
    tile: Sizes | None = Field(None, description="largest piece given to the network at once; null: whole slices")
    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.5, description="share that neighbouring tiles have in common"
    )
    mirror: tuple[Literal["depth", "height", "width"], ...] = Field(
        (), description="axes mirrored when --tta is asked for"
    )
    quarter_turns: bool = Field(
        False, description="--tta turns by 90° in the plane, too: for images that have no upright"
    )
    batch: Count = Field(1, description="tiles or slices at once")
    min_component_size: tuple[NotNegative, ...] | None = Field(
        None,
        min_length=1,
        description="connected components below this are dropped: mm³, or pixels of the network's grid where images "
        "have no mm; one for all classes, or one a class; 0 keeps all; null: as fitted",
    )

    _one = field_validator("min_component_size", mode="before")(one_or_several)


class Folds(Strict):
    count: Annotated[int, Field(ge=2)] = Field(5, description="parts of a cross-validation; one of them validates")
    seed: int = Field(0, ge=0, description="shuffles the patients")


def _established(settings: Strict) -> dict[str, Any]:
    """As JSON, without `Strict.LATER` settings that are at their default."""
    data = settings.model_dump(mode="json")
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        if name in settings.LATER and value == info.default:
            del data[name]
        elif isinstance(value, Strict):
            data[name] = _established(value)
    return data


def content_hash(data: Any) -> str:
    """SHA-256 over JSON data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Plan(Strict):
    """The one contract between data, training and inference.

    Raises:
        PlanError: on reading, for an unknown key or a value that cannot be, with the line.
    """

    LATER = frozenset({"first_stage"})

    name: str = Field(description="of the data set, for reports")
    modality: Modality = "other"
    source: Literal["images", "volumes"] = Field(description="images have no millimetres, volumes have")
    channels: tuple[Channel, ...] = Field(min_length=1)
    labels: Labels
    spatial: Spatial
    first_stage: bool = Field(
        False,
        description="true: beside the image the network sees what other Models, trained before on a coarser grid, "
        "found in it, one plane a class; 3d alone",
    )
    network: NetworkPlan = NetworkPlan()
    training: TrainingPlan
    inference: InferencePlan = InferencePlan()
    folds: Folds = Folds()

    @model_validator(mode="after")
    def _fits(self) -> Plan:
        if self.source == "images":
            if self.spatial.mode != "2d":
                raise ValueError(f"spatial.mode {self.spatial.mode} needs volumes; these are plain images")
            if self.spatial.spacing is not None:
                raise ValueError("spatial.spacing is in mm, and plain images have none; use spatial.size")
        elif self.spatial.size is not None or self.spatial.longest is not None:
            raise ValueError("spatial.size and spatial.longest are for plain images; volumes use spatial.spacing")
        elif any(channel.intensity.kind == "local" for channel in self.channels):
            raise ValueError(
                "intensity kind local is for plain images; volumes have window, zscore, percentiles, minmax"
            )
        for name in self.training.augmentation.channel_dropout:
            if name not in (names := [channel.name for channel in self.channels]):
                raise ValueError(
                    f"training.augmentation.channel_dropout names {name!r}; the channels are {', '.join(names)}"
                )
        if self.first_stage and self.spatial.mode != "3d":
            raise ValueError(
                f"first_stage is for volumes whose patch sees a small part of them: spatial.mode 3d; this is "
                f"{self.spatial.mode}"
            )
        axes = {*self.training.augmentation.flips, *self.inference.mirror}
        if "depth" in axes and self.spatial.dims == 2:
            raise ValueError(f"mirroring along depth needs spatial.mode 3d; this is {self.spatial.mode}")
        if self.inference.quarter_turns and self.spatial.spacing is not None:
            height, width = self.spatial.spacing[1:]
            if abs(height - width) > 1e-3 * width:
                raise ValueError(
                    f"inference.quarter_turns needs square pixels; spatial.spacing has {height:g} × {width:g} mm"
                )
        if self.inference.tile is not None and len(self.inference.tile) != self.spatial.dims:
            raise ValueError(f"inference.tile needs {self.spatial.dims} sizes, got {list(self.inference.tile)}")
        sizes, classes = self.inference.min_component_size, len(self.labels.classes)
        if sizes is not None and len(sizes) not in (1, classes):
            raise ValueError(
                f"inference.min_component_size has {len(sizes)} values for {classes} class{'es' * (classes != 1)}: "
                "one for all, or one each"
            )
        return self

    def __repr__(self) -> str:
        return f"Plan({self.in_short}, {counted(self.training.epochs, 'epoch')}, {self.hash[:8]})"

    __str__ = __repr__

    @property
    def in_short(self) -> str:
        """Name, classes, what they are seen in and by which network, on one line."""
        classes = counted(len(self.labels.classes), "class", "classes")
        patch = "×".join(map(str, self.spatial.patch))
        return (
            f"{printable(self.name)}: {classes} ({brief(c.name for c in self.labels.classes)}) in {self.modality} "
            f"{self.source}, "
            f"{self.spatial.mode} {patch}, {printable(self.network.name)}"
        )

    @property
    def in_channels(self) -> int:
        """Channels the network sees; 2.5-D stacks are slice-major: [slice 0: all channels, slice 1: …].

        With a `first_stage` its planes follow, one a class.
        """
        planes = len(self.labels.classes) if self.first_stage else 0
        return len(self.channels) * (2 * self.spatial.neighbours + 1) + planes

    @property
    def hash(self) -> str:
        """SHA-256 over the content, whatever the file's comments and order."""
        return content_hash(_established(self))

    def with_settings(self, settings: Mapping[str, Any] | Iterable[str | tuple[str, Any]]) -> Plan:
        """A new Plan with some settings changed.

        Args:
            settings: ``{"training.epochs": 3}``, ``{"training": {"epochs": 3}}`` or, as on the command line,
                ``["training.epochs=3"]``
                (values are YAML).

        Another `network.name` has none of the old one's `network.options`, but for those that ``settings`` give.

        Raises:
            PlanError: no such key, or a value that cannot be.
        """
        from cpfnet.settings import assign, changes, under, validate

        data, asked = self.model_dump(mode="json"), changes(settings)
        options = data["network"]["options"]
        for dotted, value in asked:
            assign(data, dotted, value)
        network = data["network"]
        other = isinstance(network, dict) and network.get("name") != self.network.name
        if other and network.get("options") is options:
            network["options"] = under("network.options", asked)
        return validate(Plan, data, where="--set")

    def save(self, path: Path | str, *, comments: dict[str, str] | None = None) -> None:
        """Write as YAML; ``comments`` (dotted key → why) stand beside their keys."""
        from cpfnet.settings import write_yaml

        write_yaml(self, Path(path), comments or {})

    @classmethod
    def load(cls, path: Path | str) -> Plan:
        """Read a ``plan.yaml``.

        Raises:
            PlanError: the file, the line, the field, what was found and what would do.
        """
        from cpfnet.settings import read_yaml

        return read_yaml(cls, Path(path))
