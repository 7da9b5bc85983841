"""A network compiled by `torch.compile`: really, where there is a compiler."""

import shutil

import numpy as np
import pytest
import torch
import torch._inductor.config

from cpfnet.errors import NetworkError
from cpfnet.inference.backends.autotune import AutoBackend
from cpfnet.inference.backends.select import backend_of
from cpfnet.inference.torch_backend.network import torch_backend
from tests.inference.oracle import make_model, oracle

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler"
)


def test_without_a_compiler_it_is_refused_before_anything_is_read():
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(NetworkError, match="needs a C\\+\\+ compiler") as caught,
    ):
        backend_of(make_model(), "torch-compile", device="cpu")
    assert "--backend torch" in caught.value.fix


@pytest.mark.slow
@needs_compiler
def test_it_decides_as_torch_does_with_which_it_is_compared(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = make_model()
    x = np.random.default_rng(0).random((3, 1, 40, 48), dtype=np.float32)
    np.testing.assert_allclose(torch_backend(model, "cpu", compile=True)(x), oracle(model)(x), atol=1e-3)
    backend = backend_of(model, "torch-compile", device="cpu")
    assert isinstance(backend, AutoBackend)
    assert (backend.exact, backend.others) == ("torch", ["torch-compile"])


@pytest.mark.slow
@needs_compiler
def test_a_compiler_that_fails_is_an_error_with_a_fix(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    backend = torch_backend(make_model(), "cpu", compile=True)
    broken = {"cpp.cxx": (shutil.which("false"),), "force_disable_caches": True}
    with (
        torch._inductor.config.patch(broken),
        pytest.raises(NetworkError, match="cannot compile the network") as caught,
    ):
        backend(np.zeros((1, 1, 32, 40), np.float32))
    assert "--backend torch" in caught.value.fix
