"""Whether a PyTorch has kernels for a GPU: new builds leave old GPUs out, and old builds know no new ones."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from cpfnet.errors import TrainingError


def check_kernels(device: torch.device) -> None:
    """Refuse a GPU that this PyTorch cannot compute on, before anything is written, and not with the first step's
    "no kernel image is available for execution on the device".

    Args:
        device: where training will run; a CPU, or a GPU of AMD's, passes.

    Raises:
        TrainingError: no kernels, with the command that installs a PyTorch which has them.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return
    capability = torch.cuda.get_device_capability(device)
    if has_kernels(capability, torch.cuda.get_arch_list()):
        return
    from cpfnet.planner.machine import Gpu, install_command

    name = torch.cuda.get_device_name(device)
    number = float(f"{capability[0]}.{capability[1]}")
    raise TrainingError(
        f"PyTorch {torch.__version__} has no kernels for {name} (compute capability {number}): it was built for "
        f"{', '.join(torch.cuda.get_arch_list())}",
        fix=f"{install_command(Gpu(name, '', None, 'cuda', number))}; or train with --device cpu",
    )


def has_kernels(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Do ``sm_`` kernels of the same major version, or ``compute_`` code of an earlier one, serve this GPU?

    ``sm_86`` runs on later minor versions of the same major one; ``compute_90`` is compiled on any later GPU; what
    has a letter (``sm_90a``) runs on exactly that one (CUDA C++ Programming Guide, application compatibility).
    """
    for entry in built_for:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", entry)
        if found is None:
            continue
        version = int(found[2]), int(found[3])
        if found[4]:
            fits = version == capability
        elif found[1] == "sm":
            fits = version[0] == capability[0] and version[1] <= capability[1]
        else:
            fits = version <= capability
        if fits:
            return True
    return False
