"""GPUs without kernels are refused with the way out."""

from __future__ import annotations

import pytest
import torch

from cpfnet.errors import TrainingError
from cpfnet.training.hardware.kernels import check_kernels, has_kernels

CUDA_126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CUDA_130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "built_for", "fits"),
    [
        ((6, 1), CUDA_126, True),  # GTX 1060, by kernels of 6.0
        ((6, 1), CUDA_130, False),
        ((7, 0), CUDA_130, False),
        ((8, 9), CUDA_130, True),  # RTX 4090, by kernels of 8.6
        ((12, 0), CUDA_126, False),  # RTX 5090
        ((12, 1), CUDA_130, True),
        ((13, 0), CUDA_130, True),  # compiled when it is met
        ((9, 0), ["sm_90a"], True),
        ((10, 0), ["sm_90a"], False),
        ((8, 0), [], False),
        ((8, 0), ["gfx942"], False),
    ],
)
def test_which_gpus_a_build_serves(capability: tuple[int, int], built_for: list[str], fits: bool) -> None:
    assert has_kernels(capability, built_for) == fits


def test_a_cpu_passes() -> None:
    check_kernels(torch.device("cpu"))


@pytest.mark.parametrize(("capability", "wheel"), [((6, 1), "cu126"), ((12, 0), "cu130")])
def test_an_old_or_new_gpu_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], wheel: str
) -> None:
    other = CUDA_130 if capability == (6, 1) else CUDA_126
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: other)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(TrainingError, match=rf"no kernels for a GPU(.|\n)*{wheel}; or train with --device cpu"):
        check_kernels(torch.device("cuda:0"))
    monkeypatch.setattr(torch.version, "hip", "6.4")  # its names are others
    check_kernels(torch.device("cuda:0"))
