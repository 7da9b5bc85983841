"""Proposed plans: valid for any data, and with the choices that the figures call for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpfnet.data.case import Dataset
from cpfnet.data.dataset import load
from cpfnet.errors import PlanError
from cpfnet.planner.costs import GIB
from cpfnet.planner.fingerprint import ChannelFingerprint, ClassFingerprint, Fingerprint, fingerprint
from cpfnet.planner.gpu_patch import multiples
from cpfnet.planner.machine import Memory
from cpfnet.planner.modality import Look
from cpfnet.planner.proposal import network_options, propose
from cpfnet.planning import LabelClass, Labels, Modality, Plan
from tests import synthetic
from tests.planner.pictures import KINDS
from tests.planner.shapes import spiculated

CPU, GPU = Memory(16 * GIB, "cpu"), Memory(24 * GIB, "cuda")
GREY = Look(
    colour=0,
    red=1 / 3,
    green=1 / 3,
    warm=0,
    highlights=0,
    disc=0,
    rim=0.5,
    centre=0.5,
    black=0,
    fan=0,
    layers=0,
    top=0.5,
    mirror=0,
    spine=1,
    aspect=1,
)


def found(
    sizes: Any = ((512, 512),),
    *,
    spacing: tuple[float, float, float] | None = None,
    low: float = 0,
    high: float = 255,
    inside: tuple[float, float] = (20, 200),
    channels: int = 1,
    names: tuple[str, ...] = ("lesion",),
    radius: float = 20,
    frequency: float = 0.1,
    tubular: bool = False,
    **changes: Any,
) -> Fingerprint:
    volumes = len(sizes[0]) == 3
    five = (low, low, (low + high) / 2, high, high)
    return Fingerprint.model_validate(
        {
            "cases": len(sizes),
            "patients": len(sizes),
            "volumes": volumes,
            "sizes": sizes,
            "spacings": [spacing or (1, 1, 1)] * len(sizes) if volumes else [],
            "channels": [
                ChannelFingerprint(
                    name=f"c{i}",
                    low=low,
                    high=high,
                    image=five,
                    body=five,
                    labels=(inside[0], *five[1:4], inside[1]),
                    typical=tuple(value / max(abs(high), 1e-9) for value in five),
                )
                for i in range(channels)
            ],
            "values": {},
            "labels": Labels(classes=tuple(LabelClass(name=n, values=(i + 1,)) for i, n in enumerate(names))),
            "labels_reason": "for a test",
            "classes": [
                ClassFingerprint(name=n, cases=1, frequency=frequency, radius=radius, tubular=tubular) for n in names
            ],
            "look": GREY,
            "readers": 1,
            "roi": 0,
            **changes,
        }
    )


def plan(fingerprint: Fingerprint, memory: Memory = CPU, **options: Any) -> Plan:
    return _proposed(fingerprint, memory, **options)[0]


def _proposed(fingerprint: Fingerprint, memory: Memory, **options: Any) -> tuple[Plan, dict[str, str]]:
    return propose(fingerprint, Dataset(Path(), "test", ()), memory=memory, **options)


@settings(max_examples=150, deadline=None)
@example(
    size=[33, 1, 225], spacing=(9.0, 3.0, 0.5), channels=1, classes=1, radius=0.0, low=0.0, frequency=0.0, memory=4,
    device="cuda", modality=None, network=None,
)  # fmt: skip
@given(
    size=st.lists(st.integers(1, 3000), min_size=2, max_size=3),
    spacing=st.tuples(*[st.floats(0.05, 20)] * 3),
    channels=st.integers(1, 5),
    classes=st.integers(1, 6),
    radius=st.floats(0, 400),
    low=st.floats(-2000, 0),
    frequency=st.floats(0, 1),
    memory=st.integers(0, 200),
    device=st.sampled_from(["cpu", "cuda"]),
    modality=st.sampled_from([None, *get_args(Modality)]),
    network=st.sampled_from([None, "unet", "cpfnet-guide"]),
)
def test_any_data_gets_a_valid_plan_with_reasons(
    size: list[int],
    spacing: Any,
    channels: int,
    classes: int,
    radius: float,
    low: float,
    frequency: float,
    memory: int,
    device: str,
    modality: Any,
    network: Any,
) -> None:
    print_of = found(
        (tuple(size),),
        spacing=spacing,
        channels=channels,
        names=tuple(f"n{i}" for i in range(classes)),
        radius=radius,
        low=low,
        frequency=frequency,
    )
    dataset = Dataset(Path(), "test", ())
    made, reasons = propose(print_of, dataset, memory=Memory(memory * GIB, device), modality=modality, network=network)
    if made.spatial.mode == "3d" and device == "cuda":
        assert made.spatial.spacing is not None
        units = multiples(made.spatial.patch, made.spatial.spacing)  # type: ignore[arg-type]  # 3-D has all three
    else:
        units = (8 if made.source == "volumes" and max(size) <= 96 and device == "cpu" else 32,) * made.spatial.dims
    assert all(n % unit == 0 for n, unit in zip(made.spatial.patch, units, strict=True))
    assert made.spatial.dims == 2 or made.source == "volumes"
    assert made.training.samples % (made.training.batch * made.training.accumulate) == 0
    content = made.model_dump()
    for key, reason in reasons.items():  # every reason stands at a key of the plan
        assert reason
        at: Any = content
        for part in key.split("."):
            at = at[int(part)] if isinstance(at, (list, tuple)) else at[part]


def test_ct_window() -> None:
    wide = plan(found(((40, 512, 512),), low=-1024, high=3071, inside=(-900, 1500)))
    assert wide.modality == "ct"
    assert wide.channels[0].intensity.model_dump() == {"kind": "window", "low": -1000.0, "high": 2000.0}
    liver = plan(found(((40, 512, 512),), low=-1024, high=3071, inside=(20, 180))).channels[0].intensity
    assert liver.kind == "window"
    assert liver.low < 20 < 180 < liver.high
    assert liver.high - liver.low < 500


@pytest.mark.parametrize(
    ("modality", "kind"), [("mr", "zscore"), ("other", "minmax"), ("oct", "percentiles"), ("ultrasound", "percentiles")]
)
def test_normalisation_of_volumes(modality: str, kind: str) -> None:
    made = plan(found(((40, 128, 128),)), modality=modality)
    assert made.modality == modality
    assert made.channels[0].intensity.kind == kind


def test_normalisation_of_colour() -> None:
    look = GREY.model_copy(update={"colour": 0.5})
    pretrained = plan(found(channels=3, look=look), modality="dermoscopy")
    assert pretrained.network.weights == "imagenet"
    assert [c.intensity.mean for c in pretrained.channels] == [0.485, 0.456, 0.406]  # type: ignore[union-attr]
    assert [c.intensity.std for c in pretrained.channels] == [0.229, 0.224, 0.225]  # type: ignore[union-attr]
    scratch = plan(found(channels=3, look=look), modality="dermoscopy", network="unet")
    assert scratch.network.weights == "none"
    assert scratch.channels[0].intensity.kind == "scale"


def test_declared_modality_wins_over_the_guess_and_the_argument_over_both() -> None:
    declared = Dataset(Path(), "test", (), modality="oct")
    made, reasons = propose(found(), declared, memory=CPU)
    assert made.modality == "oct"
    assert "declared" in reasons["modality"]
    assert propose(found(), declared, memory=CPU, modality="xray")[0].modality == "xray"
    with pytest.raises(PlanError, match="unknown modality 'mri'"):
        propose(found(), declared, memory=CPU, modality="mri")


def test_thin_structures_keep_every_pixel_and_thick_ones_the_whole_image() -> None:
    vessels = plan(found(((584, 565),), radius=1.4, tubular=True))
    assert vessels.spatial.size is None
    assert vessels.spatial.patch == (192, 192)
    assert plan(found(((584, 565),), radius=1.4, tubular=True), GPU).spatial.patch == (512, 512)
    assert vessels.labels.classes[0].tubular
    lungs = plan(found(((1024, 1024),), radius=80))
    assert lungs.spatial.size == lungs.spatial.patch == (224, 224)
    assert plan(found(((1024, 1024),), radius=80), GPU).spatial.size == (512, 512)
    portrait_and_landscape = plan(found(((1024, 600), (600, 1024)), radius=80))
    assert portrait_and_landscape.spatial.size is None  # one size would distort half of them


@pytest.mark.parametrize(
    ("size", "radius", "shrunk", "batch"),
    [
        ((288, 384), 51, (96, 128), 8),  # no smaller, though the radius would allow it
        ((512, 512), 37, (224, 224), 5),
        ((512, 512), 25, (256, 256), 4),  # no larger, though the radius asks for it
        ((300, 384), 51, (96, 128), 8),  # the nearest multiples of 32
        ((1000, 1300), 200, (96, 128), 8),
        ((96, 128), 51, None, 21),  # as small already
    ],
)
def test_on_a_cpu_broad_structures_are_shrunk_for_the_sake_of_more_images(size, radius, shrunk, batch) -> None:
    proposed, reasons = propose(found((size,), radius=radius), Dataset(Path(), "test", ()), memory=CPU)
    assert proposed.spatial.size == shrunk
    assert proposed.training.batch == batch
    assert proposed.network.name == ("cpfnet" if shrunk is None else "cpfnet-hr")
    if shrunk is not None:
        assert "boundaries come back" in reasons["network.name"]
        assert "more of them are learned from" in reasons["spatial.size"]
        assert "many small steps" in reasons["training.batch"]
        pixels = proposed.training.samples * shrunk[0] * shrunk[1]
        assert pixels == pytest.approx(50 * 4 * 256 * 256, rel=0.02)  # those of 50 steps of 4 patches of 256²


@pytest.mark.parametrize("network", [None, "cpfnet", "cpfnet-hr"])
def test_from_scratch_on_a_cpu_our_networks_are_narrow(network: str | None) -> None:
    for width, volume_or_image in (
        (32, found(((512, 512),), radius=2)),
        (16, found(((512, 512),), radius=40)),
        (16, found(((40, 300, 300),), spacing=(5, 1, 1))),
        (16, found(((40, 300, 300),), spacing=(5, 1, 1), radius=2)),
    ):
        proposed, reasons = _proposed(volume_or_image, CPU, network=network, weights="none")
        assert proposed.network.options == {"width": width}
        assert f"{width} channels" in reasons["network.options"]
        for memory, weights in ((GPU, "none"), (CPU, None), (CPU, "imagenet"), (CPU, "resnet34.pth")):
            other, reasons = _proposed(volume_or_image, memory, network=network, weights=weights)
            assert other.network.options == {}
            assert "network.options" not in reasons


def test_an_encoder_that_is_asked_for_is_planned_for() -> None:
    small = Memory(9 * GIB, "cuda")
    plans = [
        plan(found(((512, 512),)), small, network="cpfnet", options={"encoder": encoder})
        for encoder in ("resnet18", "resnet50", "resnet101", "parts:Own")
    ]
    pixels = [one.training.batch * np.prod(one.spatial.patch) for one in plans]
    assert pixels[0] > pixels[1] > pixels[2] == pixels[3]
    assert [one.network.options["encoder"] for one in plans] == ["resnet18", "resnet50", "resnet101", "parts:Own"]
    assert [one.network.weights for one in plans] == ["imagenet", "imagenet", "imagenet", "none"]
    narrow = plan(found(((512, 512),)), CPU, network="cpfnet", weights="none", options={"encoder": "resnet18"})
    assert narrow.network.options == {"width": 16, "encoder": "resnet18"}


def test_options_that_are_asked_for_are_those_of_the_proposed_network() -> None:
    assert network_options(["network.options.encoder=resnet50", "training.epochs=3"]) == {"encoder": "resnet50"}
    assert network_options({"network": {"options": {"width": 8}}}) == {"width": 8}
    assert network_options({"network.options": {"width": 8}}) == {"width": 8}
    assert network_options(["network.name=unet", "network.options.widths=[4, 4, 4, 4, 4]"]) == {}


@pytest.mark.parametrize("network", ["unet", "cpfnet-guide", "resnet34-unet", "dynunet"])
def test_other_networks_keep_their_width(network: str) -> None:
    assert plan(found(((512, 512),)), network=network, weights="none").network.options == {}


def test_broad_structures_in_a_fine_network_are_learned_from_as_in_others() -> None:
    asked, other = (plan(found(((512, 512),), radius=37), network=name) for name in ("cpfnet-hr", "unet"))
    assert (asked.spatial, asked.training.batch) == (other.spatial, other.training.batch)


def test_thin_structures_get_what_thin_structures_need() -> None:
    thin, reasons = propose(
        found(((584, 565),), radius=1.4, tubular=True, channels=3),
        Dataset(Path(), "test", ()),
        memory=CPU,
        modality="fundus",
        weights="none",
    )
    assert thin.network.name == "cpfnet-hr"
    assert {channel.intensity.kind for channel in thin.channels} == {"local"}
    assert thin.training.foreground == 0  # any patch holds some
    assert thin.training.loss.options == {"background": False}
    assert thin.training.learning_rate == 3e-3
    assert thin.training.augmentation.quarter_turns
    assert thin.training.augmentation.rotation_degrees == 180
    assert all("thin" in reasons[key] for key in ("network.name", "channels"))
    assert (thin.training.batch, thin.training.samples) == (2, 2 * 178)  # the pixels of 50 steps of 4 patches of 256²
    assert "many small steps" in reasons["training.batch"]
    assert plan(found(((584, 565),), radius=1.4, tubular=True), GPU).training.batch == 8


@pytest.mark.parametrize("network", ["cpfnet", "unet", "dynunet"])
def test_thin_structures_are_learned_in_as_many_steps_by_other_networks(network: str) -> None:
    thin = found(((584, 565),), radius=1.4, tubular=True)
    asked, proposed = plan(thin, network=network), plan(thin)
    assert (asked.spatial, asked.training.batch, asked.training.samples) == (
        proposed.spatial,
        proposed.training.batch,
        proposed.training.samples,
    )


def test_who_looks_for_vessels_does_not_lean_on_red_and_blue() -> None:
    photographs = found(radius=1.4, tubular=True, channels=3, look=GREY.model_copy(update={"colour": 0.4}))
    dropout = plan(photographs, modality="fundus").training.augmentation.channel_dropout
    names = [channel.name for channel in photographs.channels]
    assert dropout == {names[0]: 0.5, names[2]: 0.5}
    assert not plan(photographs, modality="other").training.augmentation.channel_dropout
    assert not plan(
        found(radius=30, channels=3, look=photographs.look), modality="fundus"
    ).training.augmentation.channel_dropout


def test_photographs_of_the_fundus_have_their_size_for_a_scale() -> None:
    vessels = found(((584, 565), (600, 500)), radius=1.4, tubular=True, channels=3)
    made, reasons = propose(vessels, Dataset(Path(), "test", ()), memory=CPU, modality="fundus")
    assert made.spatial.longest == max(vessels.median_size)
    assert "scale" in reasons["spatial.longest"]
    assert plan(vessels, modality="other").spatial.longest is None  # a larger micrograph shows more, not larger
    disc = plan(found(((1024, 1024),), radius=80, channels=3), modality="fundus")
    assert (disc.spatial.size, disc.spatial.longest) == ((224, 224), None)


def test_colour_varies_in_photographs_alone() -> None:
    photograph = found(channels=3, look=GREY.model_copy(update={"colour": 0.4}))
    assert plan(photograph, modality="dermoscopy").training.augmentation.colour == 0.3
    assert plan(found(channels=3)).training.augmentation.colour == 0
    assert plan(found()).training.augmentation.colour == 0


def test_blobs_thick_vessels_and_volumes_do_without() -> None:
    for other in (
        plan(found(radius=30), GPU),
        plan(found(radius=8)),
        plan(found(radius=30, tubular=True)),
        plan(found(((30, 512, 512),), spacing=(5, 0.7, 0.7), radius=30, tubular=True)),
    ):
        assert other.network.name == "cpfnet"
        assert "local" not in {channel.intensity.kind for channel in other.channels}
    vessels = plan(found(((30, 512, 512),), spacing=(5, 0.7, 0.7), radius=1.5, tubular=True))
    assert vessels.network.name == "cpfnet-hr"
    assert vessels.channels[0].intensity.kind != "local"  # volumes have a scale of their own
    small, reasons = propose(
        found(((36, 80, 35),), spacing=(1, 1, 1), radius=2.5), Dataset(Path(), "test", ()), memory=CPU
    )
    assert small.network.name == "cpfnet-hr"
    assert "small (median radius 2.5 pixels)" in reasons["network.name"]
    assert not small.training.loss.options  # nothing is lost by being compact
    assert plan(found(radius=0)).network.name == "cpfnet"  # in no label
    assert plan(found(radius=1.4, tubular=True), network="unet").network.name == "unet"


@pytest.mark.parametrize(
    ("size", "radius", "tubular", "why"),
    [(64, 20, False, "small enough"), (512, 2, True, "thin and long"), (512, 8, False, "would become too thin")],
)
def test_why_images_are_not_shrunk(size: int, radius: float, tubular: bool, why: str) -> None:
    data = found(((size, size),), radius=radius, tubular=tubular)
    proposed, reasons = propose(data, Dataset(Path(), "test", ()), memory=CPU)
    assert proposed.spatial.size is None
    assert why in reasons["spatial.size"]


@pytest.mark.parametrize(
    ("size", "spacing", "memory", "mode", "slices"),
    [
        ((36, 50, 35), (1, 1, 1), GPU, "3d", "axial"),
        ((36, 50, 35), (1, 1, 1), CPU, "3d", "axial"),
        ((36, 80, 35), (1, 1, 1), CPU, "2.5d", "axial"),
        ((30, 512, 512), (5, 0.7, 0.7), GPU, "3d", "axial"),
        ((15, 512, 512), (5, 0.7, 0.7), GPU, "2d", "axial"),
        ((30, 512, 512), (5, 0.7, 0.7), CPU, "2d", "axial"),
        ((120, 512, 512), (1.5, 0.7, 0.7), GPU, "3d", "axial"),
        ((512, 40, 512), (0.7, 5, 0.7), CPU, "2d", "coronal"),
        ((512, 512, 40), (0.7, 0.7, 1.5), CPU, "2.5d", "sagittal"),
        ((3, 256, 256), (1, 1, 1), GPU, "2d", "axial"),
    ],
)
def test_which_way_volumes_are_cut(size: Any, spacing: Any, memory: Memory, mode: str, slices: str) -> None:
    made = plan(found((size,), spacing=spacing, high=3000), memory)
    assert (made.spatial.mode, made.spatial.slices) == (mode, slices)
    assert made.spatial.spacing is not None
    assert made.spatial.spacing[0] == (None if mode == "2d" else max(spacing))
    if mode == "3d":
        assert made.network.weights == "none"
        assert made.inference.tile == made.spatial.patch


def test_small_volumes_enter_whole() -> None:
    small = found(((36, 50, 35),), spacing=(1, 1, 1), radius=2.5)
    assert plan(small, GPU).spatial.patch == (40, 56, 40)
    whole, reasons = propose(small, Dataset(Path(), "test", ()), memory=CPU)
    assert whole.spatial.patch == (40, 56, 40)
    assert (whole.network.name, whole.network.weights) == ("dynunet", "none")
    assert "on a CPU" in reasons["network.name"]
    assert (whole.training.batch, whole.training.accumulate) == (1, 1)
    assert "many small steps" in reasons["training.batch"]
    assert whole.inference.tile == whole.spatial.patch
    assert whole == plan(small, CPU, network="dynunet")


@pytest.mark.parametrize(
    ("sizes", "spacing", "mode"),
    [
        (((36, 64, 35),), (1, 1, 1), "3d"),
        (((36, 65, 35),), (1, 1, 1), "2.5d"),
        (((36, 50, 35),) * 3 + ((36, 50, 65),), (1, 1, 1), "2.5d"),  # a single larger one
        (((16, 50, 35),), (2, 1, 1), "3d"),
        (((15, 50, 35),), (2, 1, 1), "2.5d"),
        (((16, 50, 35),), (2.5, 1, 1), "2.5d"),
    ],
)
def test_which_volumes_enter_whole_on_a_cpu(sizes: Any, spacing: Any, mode: str) -> None:
    assert plan(found(sizes, spacing=spacing), CPU).spatial.mode == mode


@pytest.mark.parametrize("wanted", [{"network": "cpfnet-hr"}, {"network": "unet"}, {"weights": "imagenet"}])
def test_small_volumes_are_cut_into_slices_where_that_is_what_was_asked_for(wanted: dict[str, str]) -> None:
    small = found(((36, 50, 35),), spacing=(1, 1, 1), radius=2.5)
    made, reasons = propose(small, Dataset(Path(), "test", ()), memory=CPU, **wanted)
    assert "dynunet would take such volumes whole" in reasons["spatial.mode"]
    assert (made.spatial.mode, made.spatial.patch) == ("2.5d", (56, 40))
    assert made.network.name == wanted.get("network", "cpfnet-hr")
    shallow = found(((15, 50, 35),), spacing=(1, 1, 1), radius=2.5)
    _, reasons = propose(shallow, Dataset(Path(), "test", ()), memory=CPU, **wanted)
    assert "dynunet" not in reasons["spatial.mode"]  # it would not


@pytest.mark.parametrize(
    ("size", "spacing", "batch"),
    [
        ((36, 80, 35), (1, 1, 1), 32),
        ((36, 50, 35), (1, 1, 1), 1),
        ((40, 200, 250), (3, 1, 1), 4),
        ((584, 565), None, 4),
    ],
)
def test_small_slices_are_predicted_many_at_once(size: Any, spacing: Any, batch: int) -> None:
    assert plan(found((size,), spacing=spacing), CPU).inference.batch == batch


def test_little_memory_is_made_up_for_by_accumulation() -> None:
    much, little = (
        plan(found(((584, 565),), radius=9, tubular=True)),
        plan(found(((584, 565),), radius=9, tubular=True), Memory(3 * GIB, "cpu")),
    )
    assert (much.training.batch, much.training.accumulate) == (4, 1)
    assert little.training.batch < 4
    assert little.training.batch * little.training.accumulate >= 4


@pytest.mark.parametrize(
    ("modality", "names", "flips"),
    [
        ("fundus", ("vessel",), ("height", "width")),
        ("xray", ("lung",), ()),
        ("xray", ("lung_left", "lung_right"), ()),
        ("oct", ("fluid",), ("width",)),
        ("dermoscopy", ("Left eye",), ()),
        ("dermoscopy", ("cleft",), ("height", "width")),
    ],
)
def test_mirrors_where_anatomy_allows(modality: str, names: tuple[str, ...], flips: tuple[str, ...]) -> None:
    made = plan(found(names=names), modality=modality)
    assert made.training.augmentation.flips == flips
    assert made.inference.mirror == flips
    assert made.inference.quarter_turns == ({"height", "width"} == set(flips))  # the patch is square
    assert not plan(found(((288, 384),), names=names, radius=51), modality=modality).inference.quarter_turns


def test_mirrors_of_volumes() -> None:
    def flips(modality: str, names: tuple[str, ...] = ("tumour",)) -> tuple[str, ...]:
        return plan(found(((64, 64, 64),), names=names), GPU, modality=modality).training.augmentation.flips

    assert flips("mr") == ("width",)
    assert flips("mr", ("hippocampus L", "hippocampus R")) == ()
    assert flips("ct") == ()


def test_no_more_folds_than_patients() -> None:
    assert plan(found(((64, 64),) * 12)).folds.count == 5
    assert plan(found(((64, 64),) * 3)).folds.count == 3
    assert plan(found()).folds.count == 2


def test_from_files_to_a_plan_file(tmp_path: Path) -> None:
    dataset = load(synthetic.make_volumes_dataset(tmp_path / "data", spacing=(1.0, 1.0, 2.0)))
    made, reasons = propose(fingerprint(dataset), dataset, memory=CPU)
    made.save(tmp_path / "plan.yaml", comments=reasons)
    assert Plan.load(tmp_path / "plan.yaml") == made
    text = (tmp_path / "plan.yaml").read_text()
    assert max(len(line) for line in text.splitlines() if line.strip().startswith("#")) <= 115
    for key in (
        "modality",
        "labels",
        "spatial.mode",
        "spatial.spacing",
        "training.batch",
        "training.epochs",
        "inference.tile",
    ):
        assert reasons[key].split()[0] in text
    assert Memory.found().bytes > 0


@pytest.mark.parametrize(
    ("sizes", "spacing", "memory", "says"),
    [
        (((512, 512),) * 20, None, CPU, "each of about 16 cases that train is seen about 250 times"),
        (
            ((40, 512, 512), (60, 512, 512)),
            (3, 1, 1),
            CPU,
            "each of about 50 slices of 1 case that trains is seen about 160 times",
        ),
        (((64, 512, 512),), (1, 1, 1), GPU, "patches of each of 1 case"),
    ],
)
def test_how_often_data_are_seen(sizes: Any, spacing: Any, memory: Memory, says: str, tmp_path: Path) -> None:
    reasons = propose(found(sizes, spacing=spacing), Dataset(tmp_path, "set", ()), memory=memory)[1]
    assert says in reasons["training.epochs"]


def test_cases_that_validate_are_not_counted_as_learned_from(tmp_path: Path) -> None:
    fingerprint = found(((512, 512),) * 20).model_copy(update={"validation": 4})
    reasons = propose(fingerprint, Dataset(tmp_path, "set", ()), memory=CPU)[1]
    assert "each of 16 cases that train is seen about 250 times" in reasons["training.epochs"]
    assert "without it the data set's own split validates" in reasons["folds.count"]


def test_polyps_are_neither_a_fundus_nor_thin_and_long(tmp_path: Path) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        picture = KINDS["polyp_round"](rng).clip(0, 255).astype(np.uint8)
        mask = spiculated(rng)[: picture.shape[1], : picture.shape[2]]
        picture = picture[:, : mask.shape[0], : mask.shape[1]]
        synthetic.write_raster(tmp_path / "images" / f"{seed}.png", picture.transpose(1, 2, 0))
        synthetic.write_raster(tmp_path / "masks" / f"{seed}.png", mask.astype(np.uint8) * 255)
    dataset = load(tmp_path)
    found, reasons = propose(fingerprint(dataset), dataset, memory=CPU)
    assert (found.modality, found.labels.classes[0].tubular) == ("other", False)
    assert reasons["modality"].startswith("not recognised: colour")
    assert "if you know what they are, plan again with --modality" in reasons["modality"]
    assert "thin and long" not in reasons["labels"]
    declared = propose(fingerprint(dataset), dataset, memory=CPU, modality="endoscopy")[0]
    assert declared.training.augmentation.flips == ("height", "width")


def test_pet_is_scaled_inside_the_body() -> None:
    volumes = found(((60, 128, 128),), spacing=(3, 3, 3), low=0, high=30000)
    assert plan(volumes, modality="pet").channels[0].intensity.kind == "zscore"
