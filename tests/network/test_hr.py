"""CPFNet-HR: counted, and able to tell single pixels apart, which the paper's head is not."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from cpfnet.network import zoo
from cpfnet.network.cpfnet import CPFNet
from cpfnet.network.hr import CPFNetHR


def test_parameters_are_counted_to_the_digit() -> None:
    with torch.device("meta"):
        network, paper = CPFNetHR(3, 4), CPFNet(3, 4)
    block = 2 * (9 * 64 * 64 + 2 * 64)  # two 3×3 convolutions and normalisations
    # Two blocks on c1; 3×3 from 128 to 64 with its normalisation, a block, 2×2 transposed to the classes; not the
    # paper's head. And what is supervised deeply: 1×1 to the classes, from 64 and from 128 channels.
    ours = 2 * block + (9 * 128 * 64 + 2 * 64) + block + (4 * 64 * 4 + 4) + (64 + 128 + 2) * 4
    body = sum(p.numel() for p in paper.parameters()) - sum(p.numel() for p in paper.head.parameters())
    assert sum(p.numel() for p in network.parameters()) == body + ours


def test_all_but_the_head_and_the_fine_skip_is_the_papers() -> None:
    with torch.device("meta"):
        ours, paper = CPFNetHR(3, 4).state_dict(), CPFNet(3, 4).state_dict()
    shared = {key: value.shape for key, value in paper.items() if not key.startswith(("head.", "fine.", "guesses."))}
    assert {
        key: value.shape for key, value in ours.items() if not key.startswith(("head.", "fine.", "guesses."))
    } == shared


@pytest.mark.slow
def test_single_pixels_can_be_told_apart() -> None:
    """Noise, in which no pixel says anything of its neighbours: interpolation must blur it."""
    right = {}
    for name in ("cpfnet", "cpfnet-hr"):
        torch.manual_seed(0)
        network, x = zoo.build(name, 1, 2).train(), torch.rand(2, 1, 64, 64)
        target = (x[:, 0] > 0.5).long()
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
        for _ in range(20):
            logits = network(x)
            logits = logits[0] if isinstance(logits, list) else logits  # supervised deeply
            optimiser.zero_grad()
            cross_entropy(logits, target).backward()
            optimiser.step()
        right[name] = float((logits.argmax(1) == target).float().mean())
    assert right["cpfnet-hr"] > 0.98
    assert right["cpfnet"] < 0.85
