"""The pages for readers of the practical guide: their programs run, and what they say of its code is so."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor, nn

from cpfnet.labels import IGNORED
from cpfnet.losses import DiceCELoss
from cpfnet.network.encoder import ResNetEncoder
from cpfnet.network.pretrained import store
from cpfnet.planning import LabelClass, Labels
from cpfnet.training.loss import Loss, cross_entropy, dice
from tests.synthetic import make_images_dataset, write_nifti
from tests.test_docs import ROOT, blocks

ENGLISH, CHINESE = ROOT / "docs/how-to/the-guide.md", ROOT / "docs/zh/the-guide.md"


@pytest.mark.slow
@pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_the_programs_of_the_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images_dataset(tmp_path / "data", cases=5)
    write_nifti(tmp_path / "scan.nii.gz", np.random.default_rng(0).normal(40, 20, (8, 9, 10)).astype(np.float32))
    torch.save(ResNetEncoder(3).state_dict(), tmp_path / "made.pth")
    monkeypatch.setenv("CPFNET_CACHE", str(tmp_path / "cache"))
    store.import_file(tmp_path / "made.pth")  # in ImageNet's place
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for text in blocks(page, "python"):
        exec(compile(text, page.name, "exec"), names)  # each goes on from the one before, as the page says
    assert names["values"]["dice"] == 1
    assert names["optimiser"].param_groups[0]["lr"] == 0.01
    for _ in range(102):
        names["optimiser"].step()
        names["schedule"].step()
    assert names["optimiser"].param_groups[0]["lr"] == 0
    assert names["fused"].shape == names["c5"].shape == (2, 512, 8, 8)
    assert names["guided"].shape == (2, 128, 32, 32)
    assert names["logits"].shape == (2, 2, 100, 130)
    assert names["scores"].of("dice")["count"] == 5
    assert Path("samples.png").exists()


def test_both_languages_show_the_same_programs() -> None:
    """Comments aside."""
    english, chinese = ([ast.dump(ast.parse(text)) for text in blocks(page, "python")] for page in (ENGLISH, CHINESE))
    assert english == chinese
    assert blocks(ENGLISH, "bash") == blocks(CHINESE, "bash")


# What follows is the guide's own code, as the pages speak of it.


def load_nifti_volume(volume: np.ndarray) -> np.ndarray:
    """Section 1.2, from the array on."""
    volume = (volume - np.min(volume)) / (np.max(volume) - np.min(volume))
    return volume.astype(np.float32)


def test_one_voxel_decides_the_guides_normalisation() -> None:
    volume = np.random.default_rng(0).normal(40, 20, (8, 8, 8))
    assert load_nifti_volume(volume).std() == pytest.approx(0.14, abs=0.01)
    volume[0, 0, 0] = 3071
    assert load_nifti_volume(volume).std() == pytest.approx(0.04, abs=0.01)
    volume[0, 0, 0] = np.nan
    assert np.isnan(load_nifti_volume(volume)).all()
    with pytest.warns(RuntimeWarning, match="invalid value"):
        assert np.isnan(load_nifti_volume(np.zeros((4, 4, 4)))).all()


def elastic_transform(image: np.ndarray, mask: np.ndarray, alpha: float = 1000, sigma: float = 30) -> Any:
    """Section 1.3."""
    random_state = np.random.RandomState(0)
    shape = image.shape
    dx = gaussian_filter((random_state.rand(*shape) * 2 - 1), sigma, mode="constant") * alpha
    dy = gaussian_filter((random_state.rand(*shape) * 2 - 1), sigma, mode="constant") * alpha
    x, y = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    indices = np.reshape(y + dy, (-1, 1)), np.reshape(x + dx, (-1, 1))
    return (
        map_coordinates(image, indices, order=1).reshape(shape),
        map_coordinates(mask, indices, order=0).reshape(shape),
    )


def test_the_guides_deformation_is_for_one_channel_and_draws_black_corners() -> None:
    image, mask = elastic_transform(np.ones((256, 256)), np.ones((256, 256), np.uint8))
    assert 0.01 < (image == 0).mean() < 0.05
    assert isinstance(image, np.ndarray)  # torchvision's rotate takes none
    with pytest.raises(ValueError, match="could not be broadcast"):
        elastic_transform(np.ones((256, 256, 3)), mask)


class GPGModule(nn.Module):
    """Section 2.2, up to the sum."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_low = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv_high = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, low: Any, high: Tensor) -> Tensor:
        low = self.conv_low(low)
        return low + F.interpolate(self.conv_high(high), size=low.shape[2:], mode="bilinear")


class DecoderBlock(nn.Module):
    """Section 3.1."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return F.relu(self.conv1(torch.cat([self.up(x), skip], dim=1)))


def test_three_errors_stop_the_guides_network() -> None:
    c3, c4, c5 = torch.rand(1, 128, 32, 32), torch.rand(1, 256, 16, 16), torch.rand(1, 512, 8, 8)
    with pytest.raises(RuntimeError, match="to have 256 channels, but got 128 channels"):
        GPGModule(256, 128)(c3, c4)
    with pytest.raises(TypeError):
        GPGModule(64, 64)(None, torch.rand(1, 64, 64, 64))
    shared = nn.Conv2d(512, 512, 3, padding=1, bias=False)  # section 2.3
    scales = [shared(F.pad(c5, (d, d, d, d))) for d in (1, 2, 4)]
    assert [scale.shape[-1] for scale in scales] == [10, 12, 16]
    with pytest.raises(RuntimeError, match="Expected size 10 but got size 12"):
        torch.cat(scales[:2], dim=1)
    for d, scale in zip((1, 2, 4), scales, strict=True):
        torch.testing.assert_close(scale[..., d:-d, d:-d], shared(c5))
    with pytest.raises(RuntimeError, match="to have 512 channels, but got 768 channels"):
        DecoderBlock(512, 256)(c5, c4)
    with pytest.raises(RuntimeError, match="Expected size 18 but got size 17"):
        DecoderBlock(768, 256)(torch.rand(1, 512, 9, 9), torch.rand(1, 256, 17, 17))


def hybrid_loss(pred: Tensor, target: Tensor, smooth: float = 1e-5) -> Tensor:
    """Section 3.2."""
    ce_loss = F.cross_entropy(pred, target.long())
    pred = F.softmax(pred, dim=1)
    onehot = F.one_hot(target, num_classes=pred.shape[1]).permute(0, 3, 1, 2).float()
    intersection = (pred * onehot).sum(dim=2).sum(dim=2)
    union = pred.sum(dim=2).sum(dim=2) + onehot.sum(dim=2).sum(dim=2)
    return ce_loss + (1 - (2.0 * intersection + smooth) / (union + smooth)).mean()


def test_dice_and_cross_entropy_are_the_guides_loss() -> None:
    torch.manual_seed(0)
    logits, codes = torch.randn(3, 3, 20, 24), torch.randint(0, 3, (3, 20, 24))
    labels = Labels(classes=[LabelClass(name="a", values=[1]), LabelClass(name="b", values=[2])])
    loss = Loss(labels, [dice, cross_entropy])
    torch.testing.assert_close(loss(logits, codes.byte()).mean(), hybrid_loss(logits, codes))
    torch.testing.assert_close(DiceCELoss()(logits, codes.byte()), hybrid_loss(logits, codes))
    with pytest.raises(IndexError, match="Target 255 is out of bounds"):
        hybrid_loss(logits, 255 * (codes > 0).long())
    with pytest.raises(RuntimeError, match="one_hot is only applicable to index tensor"):
        hybrid_loss(logits, codes.byte())
    half = codes.clone()
    half[:, 10:] = IGNORED  # which the guide cannot say
    torch.testing.assert_close(loss(logits, half.byte()), loss(logits[:, :, :10], codes[:, :10].byte()))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_the_guides_learning_rate_becomes_complex(kind: type[torch.optim.Optimizer]) -> None:
    """Section 3.3."""
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    optimiser = kind([weight], lr=0.01)  # type: ignore[call-arg]
    rate = 0.01 * (1 - 101 / 100) ** 0.9
    assert rate == pytest.approx(-0.00015 + 0.00005j, abs=1e-5)
    optimiser.param_groups[0]["lr"] = rate
    with pytest.raises(RuntimeError):
        optimiser.step()


def test_the_guides_accumulation_leaves_gradients_behind() -> None:
    """Section 4.1: six batches in groups of four."""
    model, steps = nn.Linear(3, 1), 0
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for i in range(6):
        (model(torch.rand(2, 3)).pow(2).mean() / 4).backward()
        if (i + 1) % 4 == 0:
            optimiser.step()
            optimiser.zero_grad()
            steps += 1
    assert steps == 1
    assert model.weight.grad is not None
    assert model.weight.grad.abs().sum() > 0


def calculate_metrics(pred: Tensor, target: Tensor, num_classes: int = 2) -> float:
    """Section 4.3, its Dice, of label maps."""
    scores = []
    for cls in range(num_classes):
        pred_mask, target_mask = pred == cls, target == cls
        intersection = (pred_mask & target_mask).sum().float()
        scores.append(((2.0 * intersection) / (pred_mask.sum() + target_mask.sum() + 1e-8)).item())
    return float(np.mean(scores))


def test_the_guides_dice_flatters_half_a_vessel() -> None:
    truth = torch.zeros(64, 64)
    truth[:8, :51] = 1
    half = truth.clone()
    half[:4] = 0
    assert truth.mean() == pytest.approx(0.1, abs=0.001)
    assert calculate_metrics(half, truth) == pytest.approx(0.82, abs=0.005)
    assert 2 * (half * truth).sum() / (half.sum() + truth.sum()) == pytest.approx(0.67, abs=0.005)
    assert calculate_metrics(torch.zeros(64, 64), truth) == pytest.approx(0.47, abs=0.005)
    assert calculate_metrics(torch.zeros(64, 64), torch.zeros(64, 64)) == 0.5
