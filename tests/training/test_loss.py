"""Losses against MONAI, against formulas written out, and where nothing may count."""

from __future__ import annotations

import math

import monai.losses
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet.errors import NetworkError, PlanError
from cpfnet.labels import IGNORED, OUTSIDE
from cpfnet.network import zoo
from cpfnet.planning import Plan
from cpfnet.training import loss

EXCLUSIVE = {"classes": [{"name": "a", "values": [1]}, {"name": "b", "values": [2], "tubular": True}]}
REGIONS = {"exclusive": False, "classes": [{"name": "whole", "values": [1, 2]}, {"name": "core", "values": [2]}]}


def plan(name: str = "dice+ce", labels: dict = EXCLUSIVE, **options: object) -> Plan:
    return Plan.model_validate(
        {
            "name": "t",
            "source": "images",
            "channels": [{"name": "grey", "intensity": {"kind": "minmax"}}],
            "labels": labels,
            "spatial": {"mode": "2d", "patch": [32, 32]},
            "training": {"samples": 4, "loss": {"name": name, "options": options}},
        }
    )


def batch(seed: int = 0, planes: int = 3, size: tuple[int, ...] = (12, 10)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, planes, *size, generator=generator)
    codes = torch.randint(0, 3, (2, *size), generator=generator).to(torch.uint8)
    return logits, codes


def onehot(codes: torch.Tensor, planes: int = 3) -> torch.Tensor:
    return torch.nn.functional.one_hot(codes.long(), planes).movedim(-1, 1).float()


def test_dice_and_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[[[0.0, math.log(3)]], [[0.0, 0.0]], [[-40.0, -40.0]]]])  # p = (½, ½, 0), (¾, ¼, 0)
    codes = torch.tensor([[[1, 0]]], dtype=torch.uint8)
    background = 1 - 2 * 0.75 / (1.25 + 1)
    first = 1 - 2 * 0.5 / (0.75 + 1)
    absent = 0.0  # (0 + s) / (0 + 0 + s): neither there nor predicted
    expected = (background + first + absent) / 3 - (math.log(0.5) + math.log(0.75)) / 2
    assert loss.build(plan())(logits, codes).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("size", [(12, 10), (6, 8, 10)])
def test_exclusive_terms_equal_monai_and_torch(size: tuple[int, ...]) -> None:
    logits, codes = batch(size=size)
    target = onehot(codes)
    dice = monai.losses.DiceLoss(softmax=True, reduction="none")(logits, target).flatten(1).mean(1)
    entropy = torch.nn.functional.cross_entropy(logits, codes.long(), reduction="none").flatten(1).mean(1)
    tversky = monai.losses.TverskyLoss(softmax=True, include_background=False, alpha=0.3, beta=0.7, reduction="none")(
        logits, target
    ).mean(1)
    focal = monai.losses.FocalLoss(use_softmax=True, reduction="none")(logits, target).sum(1).flatten(1).mean(1)
    for name, expected in {
        "dice": dice,
        "ce": entropy,
        "dice+ce": dice + entropy,
        "tversky": tversky,
        "focal": focal,
    }.items():
        torch.testing.assert_close(loss.build(plan(name))(logits, codes), expected, rtol=1e-5, atol=1e-6)


def test_regions_use_a_sigmoid_each() -> None:
    logits, codes = batch(planes=2)
    target = torch.stack([codes >= 1, codes == 2], 1).float()
    # codes follow the sets of regions: value 1 lies in `whole`, value 2 in both
    dice = monai.losses.DiceLoss(sigmoid=True, reduction="none")(logits, target).flatten(1).mean(1)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).mean(1)
    found = loss.build(plan("dice+ce", REGIONS))(logits, codes)
    torch.testing.assert_close(found, dice + entropy, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("labels", [EXCLUSIVE, REGIONS])
def test_focal_with_gamma_0_is_cross_entropy(labels: dict) -> None:
    logits, codes = batch(planes=3 if labels is EXCLUSIVE else 2)
    codes[:, :3] = IGNORED
    focal = loss.build(plan("focal", labels, gamma=0.0))(logits, codes)
    torch.testing.assert_close(focal, loss.build(plan("ce", labels))(logits, codes), rtol=1e-5, atol=1e-6)


def test_cldice_takes_the_tubular_class() -> None:
    logits, codes = batch(size=(24, 24))
    term = monai.losses.SoftclDiceLoss(reduction="none")(logits.softmax(1)[:, [2]], onehot(codes)[:, [2]])
    dice = loss.build(plan("dice"))(logits, codes)
    found = loss.build(plan("dice+cldice", cldice_weight=0.5))(logits, codes)
    torch.testing.assert_close(found, dice + 0.5 * term, rtol=1e-5, atol=1e-6)


def test_thin_structures_have_all_three_terms() -> None:
    logits, codes = batch(size=(24, 24))
    parts = [loss.build(plan(name))(logits, codes) for name in ("dice+ce", "dice+cldice", "dice")]
    found = loss.build(plan("dice+ce+cldice"))(logits, codes)
    torch.testing.assert_close(found, parts[0] + parts[1] - parts[2], rtol=1e-5, atol=1e-6)
    half = loss.build(plan("dice+ce+cldice", cldice_weight=0.5, label_smoothing=0.1))(logits, codes)
    smoothed = loss.build(plan("dice+ce", label_smoothing=0.1))(logits, codes)
    torch.testing.assert_close(half, smoothed + 0.5 * (parts[1] - parts[2]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("labels", [EXCLUSIVE, REGIONS])
def test_the_gradient_of_soft_cldice_is_that_of_its_value(labels: dict) -> None:
    """Finite differences, in float64, on a crossing of two lines."""
    made = plan("dice+cldice", labels)
    codes = torch.zeros(1, 9, 9, dtype=torch.long)
    codes[:, 4], codes[:, :, 3] = 2, 2
    one = onehot(codes).double()
    target = one if labels is EXCLUSIVE else torch.stack([one[:, 2], one[:, 2]], 1)
    valid = torch.ones(1, 1, 9, 9, dtype=torch.float64)

    def value(logits: torch.Tensor) -> torch.Tensor:
        probabilities = logits.softmax(1) if labels is EXCLUSIVE else logits.sigmoid()
        return loss.cldice(loss.Batch(logits, probabilities, target, valid, made.labels.exclusive, tubular))

    tubular = [k for k, c in enumerate(made.labels.classes) if c.tubular]
    noise = torch.randn(target.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert torch.autograd.gradcheck(value, (target + noise).requires_grad_(True))


def test_label_smoothing_is_that_of_torch() -> None:
    logits, codes = batch()
    expected = torch.nn.functional.cross_entropy(logits, codes.long(), reduction="none", label_smoothing=0.1)
    found = loss.build(plan("ce", label_smoothing=0.1))(logits, codes)
    torch.testing.assert_close(found, expected.flatten(1).mean(1), rtol=1e-5, atol=1e-6)


def test_label_smoothing_of_a_region_by_hand() -> None:
    logits = torch.full((1, 2, 1, 1), math.log(3))  # p = ¾ for both; the pixel is in `whole` alone
    codes = torch.tensor([[[1]]], dtype=torch.uint8)
    expected = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25) + 0.1 * math.log(0.75) + 0.9 * math.log(0.25)) / 2
    found = loss.build(plan("ce", REGIONS, label_smoothing=0.2))(logits, codes)
    assert found.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [(16, 12), (8, 12, 16)])
def test_deep_supervision_is_a_weighted_mean_over_sizes(size: tuple[int, ...]) -> None:
    """Codes of one value in each block of 4: nearest neighbour keeps them exactly."""
    built = loss.build(plan("dice+ce"))
    small = torch.randint(0, 3, (2, *[n // 4 for n in size]), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )
    small[0, 0] = IGNORED
    codes = [small]
    for _ in range(2):
        doubled = codes[0]
        for axis in range(1, small.ndim):
            doubled = doubled.repeat_interleave(2, axis)
        codes.insert(0, doubled)
    outputs = [batch(k, size=tuple(c.shape[1:]))[0].bfloat16() for k, c in enumerate(codes)]
    first, second, third = (built(output, c) for output, c in zip(outputs, codes, strict=True))
    torch.testing.assert_close(built(outputs, codes[0]), (4 * first + 2 * second + third) / 7)
    torch.testing.assert_close(built(tuple(outputs[:1]), codes[0]), first)


@pytest.mark.parametrize("patch", [(64, 96), (32, 64, 32)])
def test_deep_supervision_of_nnunets_network_by_hand(patch: tuple[int, ...]) -> None:
    """Weights 1, ½, ¼ … of all but the decoder's lowest level; masks by the nearest voxel, the far one of two."""
    torch.manual_seed(0)
    network = zoo.build(
        "dynunet", 1, 3, spatial_dims=len(patch), patch=patch, widths=[4] * 6, deep_supervision=True
    ).train()
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 3, (2, *patch), generator=generator).to(torch.uint8)
    codes[0, :10] = IGNORED
    outputs = network(torch.rand(2, 1, *patch, generator=generator))
    expected, total = torch.zeros(2), 0.0
    for level, logits in enumerate(outputs):
        step = patch[0] // logits.shape[2]
        seen = codes[(slice(None), *[slice(step // 2, None, step)] * len(patch))].long()
        counts = seen != IGNORED
        one = onehot(torch.where(counts, seen, 0)) * counts[:, None]
        p = logits.softmax(1) * counts[:, None]
        inner = (p * one).flatten(2).sum(2)
        dice = 1 - (2 * inner + 1e-5) / (p.flatten(2).sum(2) + one.flatten(2).sum(2) + 1e-5)
        entropy = -(one * logits.log_softmax(1)).flatten(1).sum(1) / counts.flatten(1).sum(1)
        expected, total = expected + 0.5**level * (dice.mean(1) + entropy), total + 0.5**level
    assert [logits.shape[2] for logits in outputs] == [patch[0] // 2**level for level in range(3)]
    torch.testing.assert_close(loss.build(plan())(outputs, codes), expected / total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 3, 6, 5), (2, 3, 12, 10)],
        [(2, 2, 12, 10)],
        [],
        [(2, 3, 12, 10), (2, 2, 6, 5)],
        [(2, 3, 12, 10), (2, 3, 30)],
    ],
)
def test_logits_of_another_shape_are_the_networks_fault(shapes: list[tuple[int, ...]]) -> None:
    codes = batch()[1]
    with pytest.raises(NetworkError, match=r"ask for \(2, 3, 12, 10\)(.|\n)*full size first"):
        loss.build(plan())([torch.zeros(shape) for shape in shapes], codes)


def test_a_dictionary_of_logits_is_the_networks_fault() -> None:
    logits, codes = batch()[:2]
    with pytest.raises(NetworkError, match=r"\['dict'\](.|\n)*full size first"):
        loss.build(plan())({"out": logits}, codes)  # type: ignore[arg-type]


def test_boundary_by_hand() -> None:
    codes = torch.tensor([[[0, 0, 1, 1, 1]]], dtype=torch.uint8)  # signed distance: 2 1 0 -1 -2
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]]).repeat(2, 1).view(1, 2, 1, 5)
    logits = torch.cat([logits, torch.full((1, 1, 1, 5), -40.0)], 1)  # p = ½ everywhere
    mean = 0.5 * (2 + 1 + 0 - 1 - 2) / 5 / 2  # the second structure is absent: 0
    dice = loss.build(plan("dice"))(logits, codes)
    found = loss.build(plan("dice+boundary", boundary_weight=1.0))(logits, codes)
    torch.testing.assert_close(found - dice, torch.tensor([mean]), atol=1e-5, rtol=0)
    codes[..., 0] = IGNORED  # now 1 0 -1 -2 over four pixels
    dice = loss.build(plan("dice"))(logits, codes)
    found = loss.build(plan("dice+boundary", boundary_weight=1.0))(logits, codes)
    torch.testing.assert_close(found - dice, torch.tensor([0.5 * (1 + 0 - 1 - 2) / 4 / 2]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("labels", [EXCLUSIVE, REGIONS])
@pytest.mark.parametrize("name", loss.LOSSES)
class TestEveryLoss:
    def planes(self, labels: dict) -> int:
        return 3 if labels is EXCLUSIVE else 2

    def test_is_finite_where_classes_are_absent(self, name: str, labels: dict) -> None:
        logits, codes = batch(planes=self.planes(labels))
        codes[0], codes[1] = 0, 2
        logits.requires_grad_(True)
        value = loss.build(plan(name, labels))(logits, codes)
        value.sum().backward()
        assert value.shape == (2,)
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()
        assert torch.isfinite(logits.grad).all()

    def test_is_zero_where_all_is_ignored(self, name: str, labels: dict) -> None:
        logits, codes = batch(planes=self.planes(labels))
        codes[0] = IGNORED
        logits.requires_grad_(True)
        value = loss.build(plan(name, labels))(logits, codes)
        value.sum().backward()
        assert value[0].item() == 0
        assert logits.grad[0].abs().max() == 0
        assert logits.grad[1].abs().max() > 0

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 99), other=st.integers(0, 99))
    def test_ignored_pixels_count_nowhere(self, name: str, labels: dict, seed: int, other: int) -> None:
        logits, codes = batch(seed, self.planes(labels))
        hidden = torch.from_numpy(np.random.default_rng(seed).random(codes.shape) < 0.4)
        codes[hidden] = IGNORED
        changed = torch.where(hidden[:, None], batch(other, self.planes(labels))[0], logits).requires_grad_(True)
        built = loss.build(plan(name, labels))
        value = built(changed, codes)
        torch.testing.assert_close(value, built(logits, codes))
        value.sum().backward()
        assert changed.grad.movedim(1, -1)[hidden].abs().max() == 0

    def test_samples_do_not_touch_each_other(self, name: str, labels: dict) -> None:
        logits, codes = batch(planes=self.planes(labels))
        codes[0, :4] = IGNORED
        built = loss.build(plan(name, labels))
        alone = torch.cat([built(logits[[i]], codes[[i]]) for i in range(2)])
        torch.testing.assert_close(built(logits, codes), alone)

    def test_half_precision_logits_are_reduced_in_float32(self, name: str, labels: dict) -> None:
        logits, codes = batch(planes=self.planes(labels))
        half = logits.bfloat16()
        built = loss.build(plan(name, labels))
        torch.testing.assert_close(built(half, codes), built(half.float(), codes))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("dice+cee", {}, "'dice+ce'"),
        ("lovasz", {}, "focal"),
        ("dice+ce", {"smoth": 1e-5}, "smooth, background, pooled, label_smoothing"),
        ("ce", {"smooth": 1e-5}, "label_smoothing"),
        ("focal", {"smooth": 1e-5}, "gamma, alpha"),
        ("ce", {"label_smoothing": 1.5}, "from 0 to 1"),
        ("focal", {"gamma": "high"}, "training.loss.options.gamma"),
        ("focal", {"gamma": -1}, "training.loss.options.gamma"),
        ("focal", {"alpha": 2.0}, "from 0 to 1"),
        ("dice", {"background": 1}, "true or false"),
        ("dice", {"pooled": 1}, "true or false"),
        ("dice+cldice", {"iterations": 2.5}, "a whole number"),
    ],
)
def test_wrong_names_and_options_are_refused(name: str, options: dict, said: str) -> None:
    with pytest.raises(PlanError, match=said.replace("+", r"\+").replace("(", r"\(")):
        loss.build(plan(name, **options))


@pytest.mark.parametrize("labels", [EXCLUSIVE, REGIONS])
@pytest.mark.parametrize("background", [True, False])
def test_pooled_dice_is_monais_over_the_batch(labels: dict, background: bool) -> None:
    exclusive = labels is EXCLUSIVE
    logits, codes = batch(planes=3 if exclusive else 2)
    target = onehot(codes) if exclusive else torch.stack([codes >= 1, codes == 2], 1).float()
    whole = background or not exclusive
    theirs = monai.losses.DiceLoss(softmax=exclusive, sigmoid=not exclusive, batch=True, include_background=whole)
    found = loss.build(plan("dice", labels, pooled=True, background=background))(logits, codes)
    torch.testing.assert_close(found, theirs(logits, target).expand(2), rtol=1e-5, atol=1e-6)


def test_a_false_alarm_in_a_sample_without_the_class_has_a_gradient_where_dice_is_pooled() -> None:
    codes = torch.zeros(2, 64, 64, dtype=torch.uint8)
    codes[0, 20:40, 20:40] = 1  # the second sample lacks it
    logits = torch.zeros(2, 2, 64, 64)
    logits[:, 1] = -6.0
    logits[0, 1, 20:40, 20:40] = 6.0
    logits[1, 1, :20, :20] = 6.0  # the false alarm
    largest = {}
    for pooled in (False, True):
        given = logits.clone().requires_grad_(True)
        labels = {"classes": [{"name": "a", "values": [1]}]}
        loss.build(plan("dice", labels, pooled=pooled, background=False))(given, codes).mean().backward()
        largest[pooled] = given.grad[1, 1, :20, :20].sum().item()
    assert 0 <= largest[False] < 1e-6
    assert largest[True] > 1e-4  # of 400 pixels at p = 0.998, whose slope is 0.0025


def test_pooled_dice_and_accumulation_exclude_each_other() -> None:
    made = plan(pooled=True).with_settings(["training.accumulate=2"])
    with pytest.raises(PlanError, match="Dice is pooled over one batch, and a step has 2"):
        loss.build(made)


@pytest.mark.parametrize(("labels", "planes"), [(EXCLUSIVE, 3), (REGIONS, 2)])
@pytest.mark.parametrize("name", sorted(loss.LOSSES))
def test_outside_is_background(name: str, labels: dict, planes: int) -> None:
    logits, codes = batch(planes=planes)
    built = loss.build(plan(name, labels))
    outside = torch.where(codes == 0, torch.tensor(OUTSIDE, dtype=torch.uint8), codes)
    assert torch.equal(built(logits, outside), built(logits, codes))
