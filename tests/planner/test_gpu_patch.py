"""Patches and batches on a GPU, beside those of nnU-Net."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cpfnet.demo import SETTINGS
from cpfnet.network import zoo
from cpfnet.network.zoo import AnySize
from cpfnet.planner.costs import GIB, room
from cpfnet.planner.gpu_patch import REFERENCE, multiples
from cpfnet.planner.machine import Memory
from cpfnet.planning import Plan
from tests.planner.test_proposal import found, plan

BRATS = found(((138, 170, 138),) * 484, spacing=(1, 1, 1), high=3000, channels=4, names=("whole", "core", "enhancing"))
LITS = found(((432, 512, 512),) * 131, spacing=(1, 0.77, 0.77), low=-1024, high=3000, names=("liver", "tumour"))
ACDC = found(
    ((9, 256, 216),) * 160 + ((16, 256, 216),) * 40,
    high=3000,
    names=("rv", "myocardium", "lv"),
    spacings=((10, 1.56, 1.56),) * 160 + ((5, 1.56, 1.56),) * 40,
)
KITS = found(((107, 512, 512),) * 300, spacing=(3, 0.78, 0.78), low=-1024, high=3000, names=("kidney", "mass", "cyst"))
HIPPOCAMPUS = found(((36, 50, 35),) * 260, spacing=(1, 1, 1), high=3000, names=("anterior", "posterior"))
PROSTATE = found(((20, 320, 320),) * 32, spacing=(3.6, 0.625, 0.625), high=3000, channels=2, names=("pz", "tz"))
BTCV = found(((130, 512, 512),) * 30, spacing=(3, 0.76, 0.76), low=-1024, high=3000, names=tuple("abcdefghijklm"))


@pytest.mark.parametrize(
    ("data", "gib", "patch", "batch"),
    [  # nnU-Net, for 8 GB: 128×128×128 × 2
        (BRATS, 8, (128, 128, 112), 2),
        (BRATS, 12, (128, 128, 128), 2),
        (BRATS, 24, (128, 128, 128), 2),
        (BRATS, 80, (128, 128, 128), 2),
        # 128×128×128 × 2
        (LITS, 8, (112, 128, 128), 2),
        (LITS, 12, (128, 128, 128), 2),
        (LITS, 24, (128, 128, 128), 2),
        (LITS, 80, (128, 128, 128), 2),
        # 20×256×224 × 4
        (ACDC, 8, (20, 256, 224), 2),
        (ACDC, 12, (20, 256, 224), 4),
        (ACDC, 24, (20, 256, 224), 4),
        (ACDC, 80, (20, 256, 224), 4),
        # 40×192×192 × 2 for 2019's kidneys at 3 mm
        (KITS, 8, (40, 192, 192), 2),
        (KITS, 12, (40, 224, 192), 2),
        (KITS, 24, (40, 224, 192), 2),
        (KITS, 80, (40, 224, 192), 2),
        # 40×56×40 × 9
        (HIPPOCAMPUS, 8, (40, 56, 40), 6),
        (HIPPOCAMPUS, 12, (40, 56, 40), 6),
        (HIPPOCAMPUS, 24, (40, 56, 40), 6),
        (HIPPOCAMPUS, 80, (40, 56, 40), 6),
        # 20×320×256 × 2
        (PROSTATE, 8, (20, 256, 256), 2),
        (PROSTATE, 12, (20, 320, 256), 2),
        (PROSTATE, 24, (20, 320, 256), 2),
        (PROSTATE, 80, (20, 320, 256), 2),
        # 48×192×192 × 2
        (BTCV, 8, (48, 160, 160), 2),
        (BTCV, 12, (48, 192, 192), 2),
        (BTCV, 24, (48, 192, 192), 2),
        (BTCV, 80, (48, 192, 192), 2),
    ],
)
def test_patches_are_as_large_as_those_of_nnunet(data: Any, gib: int, patch: tuple[int, ...], batch: int) -> None:
    made = plan(data, Memory(gib * GIB, "cuda"))
    assert (made.spatial.mode, made.network.name) == ("3d", "dynunet")
    assert made.spatial.patch == patch
    assert (made.training.batch, made.training.accumulate) == (batch, 1)


def test_of_few_coarse_slices_the_finest_tenth_decides() -> None:
    made = plan(ACDC, Memory(24 * GIB, "cuda"))
    assert made.spatial.spacing == (5, 1.56, 1.56)
    fine = found(((40, 512, 512),) * 20, high=3000, spacings=((5, 0.8, 0.8),) * 18 + ((0.5, 0.8, 0.8),) * 2)
    assert plan(fine, Memory(24 * GIB, "cuda")).spatial.spacing == (pytest.approx(4.55), 0.8, 0.8)
    finest = found(((40, 512, 512),) * 20, high=3000, spacings=((5, 0.8, 0.8),) * 15 + ((0.5, 0.8, 0.8),) * 5)
    assert plan(finest, Memory(24 * GIB, "cuda")).spatial.spacing == (0.8, 0.8, 0.8)  # not finer than pixels


def test_weights_of_photographs_keep_volumes_in_slices() -> None:
    made = plan(LITS, Memory(24 * GIB, "cuda"), weights="imagenet")
    assert (made.spatial.mode, made.network.weights) == ("2.5d", "imagenet")
    assert made.spatial.patch == (512, 512)


def test_other_networks_keep_what_they_need() -> None:
    made = plan(PROSTATE, Memory(24 * GIB, "cuda"), network="unet")
    assert min(made.spatial.patch) >= 32  # no other network takes fewer slices
    assert made.training.accumulate == 1


@pytest.mark.parametrize("memory", [Memory(16 * GIB, "cpu"), Memory(24 * GIB, "cuda")])
def test_the_demonstration_is_in_2d_wherever_it_runs(memory: Memory) -> None:
    data = found(((40, 233, 189),) * 8, spacing=(1, 1, 1), high=255, names=("grey", "white"))
    made = plan(data, memory, modality="mr").with_settings(SETTINGS)
    assert (made.spatial.mode, made.inference.tile, made.training.validation) == ("2d", None, None)


@settings(max_examples=60, deadline=None)
@given(
    patch=st.tuples(st.integers(8, 200), st.integers(32, 320), st.integers(32, 320)),
    spacing=st.tuples(st.floats(0.3, 12), st.floats(0.3, 3), st.floats(0.3, 3)),
)
def test_multiples_are_those_of_dynunet(patch: Any, spacing: Any) -> None:
    assume(spacing[0] >= max(spacing[1:]))  # slices lie across the coarsest axis
    network = zoo.build("dynunet", 1, 2, spatial_dims=3, patch=patch, spacing=spacing, widths=(1,) * 10)
    assert isinstance(network, AnySize)
    assert network.multiple == multiples(patch, spacing)


def taken(made: Plan, memory: Memory) -> float:
    """Bytes of one step's patches, as the costs say."""
    from cpfnet.planner.costs import patch_bytes

    one = patch_bytes(
        made.network.name,
        made.spatial.patch,
        made.labels.outputs,
        half=memory.device == "cuda",
        spacing=made.spatial.spacing,
        options=made.network.options,
    )
    return one * made.training.batch


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(st.integers(1, 800), st.integers(16, 1024), st.integers(16, 1024)),
    spacing=st.tuples(st.floats(0.4, 10), st.floats(0.3, 3), st.floats(0.3, 3)),
    cases=st.integers(1, 1000),
    classes=st.integers(1, 30),
    gib=st.sampled_from([6, 8, 10, 12, 16, 24, 48, 80]),
    network=st.sampled_from([None, "cpfnet-hr", "unet", "segresnet", "my-own"]),
)
def test_what_is_planned_fits(size: Any, spacing: Any, cases: int, classes: int, gib: int, network: Any) -> None:
    names = tuple(f"n{i}" for i in range(classes))
    memory = Memory(gib * GIB, "cuda")
    made = plan(found((size,) * cases, spacing=spacing, high=3000, names=names), memory, network=network)
    assert taken(made, memory) <= room(memory.bytes)
    if made.network.name == "dynunet":
        assert made.spatial.spacing is not None
        hints = {"patch": made.spatial.patch, "spacing": made.spatial.spacing}
        built = zoo.build("dynunet", 1, 2, spatial_dims=3, hints=hints, widths=(1,) * 10)
        assert built.multiple == multiples(made.spatial.patch, made.spatial.spacing)  # type: ignore[arg-type, union-attr]
    if gib >= 12:
        assert made.training.accumulate == 1
        assert made.training.batch % 2 == 0  # so that two GPUs can share it
    pixels = math.prod(made.spatial.patch) * made.training.batch
    assert pixels <= 1.5 * max(REFERENCE[made.spatial.dims], math.prod(made.spatial.patch) * 2)


def test_volumes_on_a_gpu_are_augmented_and_scored_as_nnunet_does() -> None:
    made = plan(BRATS, Memory(24 * GIB, "cuda"), modality="mr").training
    assert (made.accumulate, made.loss.options.get("pooled")) == (1, True)
    assert made.augmentation.scale_factors == (0.7, 1.4)
    assert (made.augmentation.rotation_degrees, made.augmentation.elastic) == (30, 0)
    cpu = plan(BRATS, Memory(24 * GIB, "cpu"), modality="mr").training
    assert "pooled" not in cpu.loss.options
    assert cpu.augmentation.scale_factors is None


def test_both_kinds_of_dynunet_take_flat_patches() -> None:
    flat = found(((16, 320, 320),) * 40, spacing=(5, 1, 1), high=3000)
    patches = {plan(flat, Memory(24 * GIB, "cuda"), network=name).spatial.patch for name in ("dynunet", "dynunet-res")}
    assert patches == {(16, 320, 320)}
