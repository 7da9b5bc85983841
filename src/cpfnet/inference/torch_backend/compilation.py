"""A network compiled for this machine by `torch.compile`, which needs a compiler of C++ (on a GPU: Triton, too)."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cpfnet.errors import NetworkError

if TYPE_CHECKING:
    from torch import Tensor, nn

INSTEAD = "choose --backend torch"


def require_compiler(device: str) -> None:
    """Look for what `torch.compile` needs on a device.

    Raises:
        NetworkError: it is not there.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    from cpfnet.inference.torch_backend.network import pick_device

    if pick_device(device).type == "cuda" and find_spec("triton") is None:
        raise NetworkError("torch.compile needs Triton on a GPU", fix=f"pip install triton; or {INSTEAD}")
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        fix = f"install g++, or name a compiler in the variable CXX; or {INSTEAD}"
        raise NetworkError("torch.compile needs a C++ compiler, and none was found", fix=fix) from None


def compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network, which is compiled when it is first called, and again for sizes that are not like those before.

    Raises:
        NetworkError: when called: it cannot be compiled.
    """
    import torch
    from torch._dynamo.exc import TorchDynamoException

    faster = torch.compile(network)

    def run(tensor: Tensor) -> Tensor:
        try:
            return faster(tensor)
        except TorchDynamoException as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise NetworkError(f"torch.compile cannot compile the network: {lines[0]}", fix=INSTEAD) from None

    return run
