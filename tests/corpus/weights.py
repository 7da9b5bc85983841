"""Weight files (safetensors and torch's), alone and as part of a Model folder."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from tests.corpus.mutant import ANY, OTHER, REFUSED, SAME, Mutant, file, harmed, put

FAMILIES = ("safetensors", "torch", "Model")
_REFUSED = frozenset({REFUSED})
_READ = frozenset({SAME, OTHER})


@cache
def _state() -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    return {"a.weight": torch.randn(4, 3, 3, 3), "a.bias": torch.randn(4), "n": torch.tensor(7)}


@cache
def _safetensors() -> bytes:
    from safetensors.torch import save

    return save(_state(), metadata={"plan": "x"})


@cache
def _torch(zipped: bool) -> bytes:
    import torch

    out = io.BytesIO()
    torch.save(_state(), out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


@cache
def _model_files() -> dict[str, bytes]:
    """A Model of a small network, file by file."""
    import tempfile

    from cpfnet.model import Fitted, FittedChannel, Model
    from cpfnet.network import zoo
    from cpfnet.planning import Plan
    from tests.corpus.settings import PLAN

    data = PLAN.model_dump(mode="json")
    data["network"] = {"name": "unet", "options": {"widths": [4, 4, 4, 4, 4]}, "weights": "none"}
    plan = Plan.model_validate(data)
    network = zoo.build("unet", 1, 2, widths=[4, 4, 4, 4, 4])
    channels = (FittedChannel(name="T1", low=0.0, high=1.0),)
    with tempfile.TemporaryDirectory() as folder:
        Model(plan, Fitted(plan_hash=plan.hash, cases=2, epochs=1, channels=channels), network.state_dict()).save(
            folder
        )
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _model(folder: Path, **changed: bytes | None) -> Path:
    for name, data in {**_model_files(), **changed}.items():
        if data is not None:
            put(data, name, folder / "model")
    return folder / "model"


def _model_with(name: str, data: bytes | None, folder: Path) -> Path:
    return _model(folder, **{name: data})


def _model_of(weights: bytes, folder: Path) -> Path:
    """A Model that names the hash of these weights."""
    own, other = (
        hashlib.sha256(data).hexdigest().encode() for data in (_model_files()["weights.safetensors"], weights)
    )
    fitted = _model_files()["fitted.yaml"].replace(own, other)
    return _model(folder, **{"weights.safetensors": weights, "fitted.yaml": fitted})


def container(header: Any, data: bytes = bytes(16), *, length: int | None = None) -> bytes:
    """A safetensors file of this header: an object, or the text itself."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _entry(dtype: str = "F32", shape: list[Any] | None = None, offsets: list[Any] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [4] if shape is None else shape, "data_offsets": offsets or [0, 16]}


def _crafted() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    good = {"a": _entry()}
    for length in (0, 1, 7, 100, 10**6, 10**8, 2**31, 2**63 - 1, 2**64 - 1):
        yield f"header of {length} bytes", container(good, length=length), _REFUSED
    for shape in ([10**12], [10**6, 10**6], [2**63], [2**64], [0], [-4], [4.5], ["4"], [2**32, 2**32], [1] * 1000, []):
        yield f"shape {str(shape)[:30]}", container({"a": _entry(shape=shape)}), ANY
    for offsets in (
        [0, 0],
        [0, 15],
        [0, 17],
        [16, 0],
        [8, 24],
        [-1, 15],
        [0, 10**12],
        [2**63, 2**63 + 16],
        [0.0, 16.0],
        [0],
    ):
        yield f"offsets {offsets}", container({"a": _entry(offsets=offsets)}), _REFUSED
    for dtype in ("F31", "", "object", "F64", "I8", "BOOL", "F8_E4M3", "C64", "BF16", "f32", "U64"):
        yield f"dtype {dtype!r}", container({"a": _entry(dtype)}), ANY
    yield "two tensors in the same bytes", container({"a": _entry(), "b": _entry()}), _REFUSED
    yield (
        "a gap between tensors",
        container({"a": _entry(shape=[1], offsets=[0, 4]), "b": _entry(shape=[1], offsets=[12, 16])}),
        _REFUSED,
    )
    yield "bytes that belong to none", container(good, bytes(32)), _REFUSED
    yield "no bytes", container(good, b""), _REFUSED
    yield "no tensor", container({}, b""), _REFUSED
    yield "metadata alone", container({"__metadata__": {"a": "b"}}, b""), _REFUSED
    yield "metadata that is no text", container({"__metadata__": {"a": 1}, **good}), _REFUSED
    yield "metadata of 50 MB", container({"__metadata__": {"a": "x" * 50_000_000}, **good}), ANY
    yield (
        "a tensor twice",
        container(b'{"a":' + json.dumps(_entry()).encode() + b',"a":' + json.dumps(_entry()).encode() + b"}"),
        ANY,
    )
    yield "100,000 lists deep", container(b"[" * 100_000), _REFUSED
    yield "100,000 mappings deep", container(b'{"a":' * 100_000), _REFUSED
    yield (
        "100,000 empty tensors",
        container({f"t{n}": _entry(shape=[0], offsets=[0, 0]) for n in range(100_000)}, b""),
        ANY,
    )
    yield "header that is no JSON", container(b"{a: 1}"), _REFUSED
    yield "header in Latin-1", container(b'{"\xe4": 1}'), _REFUSED
    yield "header of null bytes", container(bytes(40)), _REFUSED
    yield "entry that is a number", container({"a": 5}), _REFUSED
    yield "key of null bytes", container({"a\0b": _entry()}), ANY
    yield "key of 100,000 letters", container({"k" * 100_000: _entry()}), ANY
    yield "key of control letters", container({"\x1b[31m": _entry()}), ANY
    yield "unknown fields", container({"a": {**_entry(), "more": 1}}), ANY


class _Harm:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        import os

        return os.system, ("touch ../outside/ran",)


def _pickles() -> Iterator[tuple[str, bytes]]:
    harm = pickle.dumps({"a": _Harm()}, protocol=2)
    yield "a pickle that runs a command", harm
    whole = io.BytesIO(_torch(True))
    with zipfile.ZipFile(whole) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    first = next(iter(members)).partition("/")[0]

    def packed(**changed: bytes | None) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, data in {**members, **changed}.items():
                if data is not None:
                    archive.writestr(name, data)
        return out.getvalue()

    yield "a torch file that runs a command", packed(**{f"{first}/data.pkl": harm})
    yield "no pickle inside", packed(**{f"{first}/data.pkl": None})
    yield "no tensors inside", packed(**{f"{first}/data/0": None})
    yield "tensors shorter than they claim", packed(**{f"{first}/data/0": b"\0"})
    yield "an archive of something else", packed(**dict.fromkeys(members), **{"readme.txt": b"hello"})
    yield "a member above the folder", packed(**{"../../outside/evil": b"x"})
    squeezed = io.BytesIO()
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, bytes(2**31 - 1) if name.endswith("data/0") else data)
    yield "a compressed tensor of 2 GiB", squeezed.getvalue()
    old = _torch(False)
    yield "an old file of endless memo", old[:200] + b"q\xff" * 100_000
    yield "pickle of 100,000 lists", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    yield "pickle that claims 2 GiB of text", b"\x80\x02X\xff\xff\xff\x7f"
    yield "pickle that claims 2⁶² bytes", b"\x80\x04\x8e" + struct.pack("<Q", 2**62)
    yield "pickle that claims a memo of 2³²", b"\x80\x02Nr\xff\xff\xff\xff."
    yield "pickle of a number", pickle.dumps(5, protocol=2)
    yield "pickle of an empty mapping", pickle.dumps({}, protocol=2)
    yield "HTML", b"<!DOCTYPE html><html>403</html>"
    yield "a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def mutants(seed: int) -> Iterator[Mutant]:
    make = file("model.safetensors", _safetensors())
    yield from harmed("safetensors", "bytes", "model.safetensors", make, seed, use="weights")
    for words, data, may in _crafted():
        yield Mutant("safetensors", words, file("model.safetensors", data), "weights", may)
    for zipped, what in ((True, "ZIP"), (False, "old kind")):
        yield from harmed("torch", what, "model.pth", file("model.pth", _torch(zipped)), seed, use="weights")
    for words, data in _pickles():
        yield Mutant("torch", words, file("model.pth", data), "weights", _REFUSED)
    for name in ("weights.safetensors", "plan.yaml", "fitted.yaml"):
        text = not name.startswith("weights")
        for mutant in harmed("Model", name, f"model/{name}", _model, seed, use="model", text=text):
            yield mutant if text else replace(mutant, may=_REFUSED)  # their hash is another
    for words, data, _ in _crafted():
        yield Mutant("Model", f"weights: {words}", partial(_model_of, data), "model", _REFUSED)
    for name in _model_files():
        needed, read = name in ("plan.yaml", "fitted.yaml", "weights.safetensors"), name != "card.md"
        yield Mutant(
            "Model", f"{name} missing", partial(_model_with, name, None), "model", _REFUSED if needed else _READ, _model
        )
        yield Mutant(
            "Model", f"{name} empty", partial(_model_with, name, b""), "model", _REFUSED if read else _READ, _model
        )
    for words, data in (
        ("deep", b"[" * 100_000),
        ("of digits", b"9" * 100_000),
        ("Latin-1", b'{"\xe4": 1}'),
        ("a list", b"[1]"),
    ):
        yield Mutant("Model", f"metrics.json {words}", partial(_model_with, "metrics.json", data), "model", _REFUSED)
