"""Losses for loops of one's own: the same numbers as training, PyTorch's and MONAI's; what does not fit is refused."""

from __future__ import annotations

import monai.losses
import pytest
import torch
from torch.nn import functional as F

from cpfnet import CPFNetHR, losses
from cpfnet.errors import CpfnetError, NetworkError
from cpfnet.labels import IGNORED
from cpfnet.training import loss
from tests.training.test_loss import EXCLUSIVE, REGIONS, batch, plan

BY_NAME = {
    "dice+ce": losses.DiceCELoss,
    "dice": losses.DiceLoss,
    "ce": losses.CrossEntropyLoss,
    "focal": losses.FocalLoss,
    "tversky": losses.TverskyLoss,
    "dice+cldice": losses.DiceClDiceLoss,
    "dice+ce+cldice": losses.DiceClDiceLoss,
    "dice+boundary": losses.DiceBoundaryLoss,
}


def module(name: str, **options: object) -> losses.SegmentationLoss:
    if "cldice" in name:
        options |= {"ce": "ce" in name.split("+")}
        if not options.get("region"):
            options |= {"tubular": [2]}  # as EXCLUSIVE says
    return BY_NAME[name](**options)


@pytest.mark.parametrize("name", loss.LOSSES)
@pytest.mark.parametrize("size", [(24, 20), (12, 16, 18)])
def test_every_loss_of_training_has_a_module_that_is_bitwise_the_same(name: str, size: tuple[int, ...]) -> None:
    logits, codes = batch(size=size)
    codes[0, :5] = IGNORED
    found, expected = ((2 * logits).requires_grad_(True) for _ in range(2))
    ours = module(name, ignore_index=IGNORED, reduction="none")(found, codes)
    theirs = loss.build(plan(name))(expected, codes)
    assert torch.equal(ours, theirs)
    for value in (ours, theirs):
        value.sum().backward()
    assert found.grad is not None
    assert expected.grad is not None
    assert torch.equal(found.grad, expected.grad)


@pytest.mark.parametrize("name", loss.LOSSES)
def test_regions_are_those_of_training(name: str) -> None:
    logits, codes = batch(planes=2, size=(24, 20))
    regions = torch.stack([codes >= 1, codes == 2], 1).to(torch.int16)
    codes[:, :4] = IGNORED
    regions[:, 1, :4] = -7  # one plane is enough
    ours = module(name, region=True, ignore_index=-7, reduction="none")(logits, regions)
    assert torch.equal(ours, loss.build(plan(name, REGIONS))(logits, codes))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_cross_entropy_is_pytorchs(reduction: str, dtype: torch.dtype) -> None:
    logits, labels = batch()
    labels[:, :2] = 1
    each = F.cross_entropy(logits, labels.long(), reduction="none").flatten(1).mean(1)
    expected = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
    found = losses.CrossEntropyLoss(reduction=reduction)(logits, labels.to(dtype))  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
    if reduction == "mean":
        torch.testing.assert_close(found, torch.nn.CrossEntropyLoss()(logits, labels.long()))


@pytest.mark.parametrize("background", [True, False])
def test_dice_and_cross_entropy_are_monais(background: bool) -> None:
    logits, labels = batch()
    options = {"to_onehot_y": True, "softmax": True, "smooth_nr": 1e-5, "smooth_dr": 1e-5}
    expected = monai.losses.DiceCELoss(include_background=background, **options)(logits, labels[:, None].long())
    torch.testing.assert_close(losses.DiceCELoss(background=background)(logits, labels), expected)


def test_bool_regions_are_labels() -> None:
    logits, codes = batch(planes=1)
    mask = (codes > 0)[:, None]
    expected = F.binary_cross_entropy_with_logits(logits, mask.float())
    torch.testing.assert_close(losses.CrossEntropyLoss(region=True)(logits, mask), expected)


def test_a_sample_without_pixels_that_count_has_no_loss_and_no_gradient() -> None:
    logits, labels = batch()
    labels[0] = 9
    logits.requires_grad_(True)
    found = losses.DiceCELoss(ignore_index=9, reduction="none")(logits, labels)
    found.sum().backward()
    assert found[0] == 0
    assert found[1] > 0
    assert logits.grad is not None
    assert not logits.grad[0].any()
    assert logits.grad[1].any()


def test_deep_supervision_in_training_and_one_output_in_evaluation() -> None:
    network, made = CPFNetHR(1, 3, width=8), losses.DiceCELoss()
    image, labels = torch.rand(2, 1, 40, 48), torch.randint(0, 3, (2, 40, 48))
    outputs = network(image)
    expected = sum(w * made(o, labels) for w, o in zip((4 / 7, 2 / 7, 1 / 7), outputs, strict=True))
    torch.testing.assert_close(made(outputs, labels), expected)
    made(outputs, labels).backward()
    assert made(network.eval()(image), labels).ndim == 0
    half = F.avg_pool2d(outputs[0], 2)
    small = labels[:, 1::2, 1::2]  # nearest-exact takes the centre of two: the second
    found = losses.DiceCELoss()([outputs[0], half], labels)
    torch.testing.assert_close(found, (2 * made(outputs[0], labels) + made(half, small)) / 3)
    planes = torch.stack([labels == k for k in range(3)], 1)
    regions = losses.DiceLoss(region=True)
    found = regions([outputs[0], half], planes)
    torch.testing.assert_close(found, (2 * regions(outputs[0], planes) + regions(half, planes[..., 1::2, 1::2])) / 3)


def test_bf16_logits_are_judged_in_float32() -> None:
    logits, labels = batch()
    found = losses.DiceCELoss()(logits.bfloat16(), labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, losses.DiceCELoss()(logits.bfloat16().float(), labels))


LOGITS, LABELS = batch()


@pytest.mark.parametrize(
    ("logits", "labels", "options", "said"),
    [
        (LOGITS, 255 * (LABELS > 0).byte(), {}, "labels 255, where 0 … 2 can be"),
        (LOGITS, LABELS.long() - 1, {}, "labels -1, where"),
        (LOGITS, LABELS.float(), {}, "labels are torch.float32"),
        (LOGITS, LABELS[:, None], {}, r"labels\.squeeze\(1\)"),
        (LOGITS, LABELS[:, 1:], {}, r"labels of \(2, 11, 10\) for logits of \(2, 3, 12, 10\)"),
        (LOGITS, LABELS, {"region": True}, r"give labels of \(2, 3, 12, 10\)"),
        (LOGITS[:, :1], LABELS, {}, "its softmax is 1 everywhere"),
        (LOGITS[0], LABELS[0], {}, r"give \(N, classes"),
        ([], LABELS, {}, r"give \(N, classes"),
        ([LOGITS, LOGITS[:, :2]], LABELS, {}, "alike in batch and classes"),
        (LOGITS, LABELS.numpy(), {}, "labels are ndarray"),
    ],
)
def test_what_does_not_fit_is_refused(logits: torch.Tensor, labels: torch.Tensor, options: dict, said: str) -> None:
    with pytest.raises(CpfnetError, match=said) as caught:
        losses.DiceCELoss(**options)(logits, labels)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (losses.DiceLoss, {"smooth": -1}, "smooth = -1"),
        (losses.CrossEntropyLoss, {"label_smoothing": 1.5}, "from 0 to 1"),
        (losses.FocalLoss, {"alpha": 2.0}, "from 0 to 1"),
        (losses.DiceLoss, {"smooth": "a"}, "smooth = 'a'"),
        (losses.DiceLoss, {"smooth": None}, "smooth = None"),
        (losses.DiceClDiceLoss, {"iterations": 2.5}, "a whole number"),
        (losses.DiceCELoss, {"reduction": "average"}, "reduction = 'average'"),
        (losses.DiceClDiceLoss, {"tubular": [0]}, "from 1"),
        (losses.DiceClDiceLoss, {"tubular": []}, "None: all"),
    ],
)
def test_options_that_cannot_be_are_refused(kind: type, options: dict, said: str) -> None:
    with pytest.raises(CpfnetError, match=said) as caught:
        kind(**options)
    assert caught.value.fix


def test_a_tubular_class_that_the_network_lacks_is_named() -> None:
    with pytest.raises(CpfnetError, match="tubular names class 3, and the network has 3 planes"):
        losses.DiceClDiceLoss(tubular=[3])(LOGITS, LABELS)


def test_one_plane_for_a_softmax_is_the_networks_error() -> None:
    with pytest.raises(NetworkError, match="classes=2"):
        losses.DiceLoss()(LOGITS[:, :1], LABELS)


def test_labels_of_the_plan_are_the_ones_compared() -> None:
    """What `module` assumes of the plan's labels."""
    assert [c.get("tubular", False) for c in EXCLUSIVE["classes"]] == [False, True]


def test_an_ignore_index_does_not_wrap_to_a_label_of_8_bits() -> None:
    """-100 is 156 in uint8; torch gives the right value for int64."""
    logits, labels = torch.randn(1, 200, 4, 4), torch.full((1, 4, 4), 156)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert losses.CrossEntropyLoss()(logits, labels.to(torch.uint8)) == pytest.approx(expected.item(), rel=1e-5)
