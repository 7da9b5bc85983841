"""Weights made elsewhere: read without running code, checked key by key, fitted to the networks."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from cpfnet.errors import WeightsError
from cpfnet.network.cpfnet import CPFNet
from cpfnet.network.encoder import BLOCKS, PAPERS, WIDTH, ResNetEncoder, find_encoder
from cpfnet.network.pretrained.store import find
from cpfnet.network.pretrained.unpickle import load_tensors

State = dict[str, Tensor]


def read_state_dict(path: Path | str) -> State:
    """Read tensors from a weight file; the content decides, not the name.

    It reads torch files (ZIP and the older kind) and safetensors: plain, wrapped under ``state_dict``, or with the
    ``module.`` prefix that training on several GPUs leaves. Nothing in the file is run.

    Args:
        path: the file.

    Returns:
        Tensors on the CPU by name.

    Raises:
        WeightsError: the file is missing or damaged, is something else, or holds more than tensors.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # opening a pipe would wait for ever
            raise WeightsError("is a device or a pipe", where=path, fix="give the path of a weight file")
        with path.open("rb") as file:
            start = file.read(1024)
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError(
            f"cannot be read: {error.strerror}", where=path, fix="give the path of a weight file"
        ) from None
    kind = _kind(start, path)
    try:
        if kind == "safetensors":
            content = safetensors.torch.load_file(path)
        else:
            if kind == "torch ZIP file":
                _refuse_compressed(path, size)
            content = load_tensors(path)
    except WeightsError:
        raise
    except Exception as error:  # damaged bytes raise nearly anything
        raise WeightsError(
            f"damaged or cut off ({size:,} bytes, {kind}): {_first_line(error)}", where=path, fix="fetch it again"
        ) from None
    return unwrap(content, where=path)


def _refuse_compressed(path: Path, size: int) -> None:
    """torch stores tensors as they are; compressed ones come from elsewhere, and may fill the memory when unpacked."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > 2 * size + 2**20:
        raise WeightsError(
            f"is compressed: {size} bytes would become {unpacked}",
            where=path,
            fix="give the file that torch.save wrote",
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _kind(start: bytes, path: Path) -> str:
    """Which kind of file begins with these bytes."""
    if start.startswith(b"PK\x03\x04"):
        return "torch ZIP file"
    if start.startswith(b"\x80"):
        return "old torch file"
    if start[8:9] == b"{":  # after the length of its JSON header
        return "safetensors"
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(
            "is a Git LFS pointer, not the weights themselves", where=path, fix="run `git lfs pull` in its repository"
        )
    if re.match(rb"\s*<(!doctype|html|\?xml|head|body)", start, re.IGNORECASE):
        raise WeightsError(
            "is a web page, not a weight file; the server sent it instead of the weights",
            where=path,
            fix="fetch the file itself again (with a login or through the page's download link)",
        )
    what = "is empty" if not start else f"is no weight file (it begins with {start[:8]!r})"
    raise WeightsError(what, where=path, fix="give a torch (.pth, .pt) or .safetensors file")


def unwrap(content: Any, *, where: Path | str | None = None) -> State:
    """The state dict inside a checkpoint: without the ``state_dict`` wrapping and the ``module.`` prefix.

    Raises:
        WeightsError: not a mapping of names to tensors.
    """
    fix = "give a state dict (`model.state_dict()`), alone or under the key `state_dict`"
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        found = "an empty mapping" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise WeightsError(f"holds {found}, not weights by name", where=where, fix=fix)
    others = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        raise WeightsError(f"entries that are no named tensors: {_brief(others)}", where=where, fix=fix)
    if all(key.startswith("module.") for key in content):
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def _brief(keys: list[str]) -> str:
    return ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")


def _match(state: State, shapes: Mapping[str, torch.Size], *, of: str, where: Path | str | None = None) -> State:
    """Exactly the tensors named in ``shapes``; counters that old files do not have become 0.

    Raises:
        WeightsError: missing and unexpected keys, or other shapes, all named.
    """
    counters = {key for key in shapes if key.endswith("num_batches_tracked")}
    missing = [key for key in shapes if key not in state and key not in counters]
    unexpected = [key for key in state if key not in shapes]
    misshapen = [
        f"{key} is {list(state[key].shape)} instead of {list(shape)}"
        for key, shape in shapes.items()
        if key in state and state[key].shape != shape
    ]
    problems = [
        f"{name}: {_brief(keys)}"
        for name, keys in (("missing", missing), ("unexpected", unexpected), ("shapes", misshapen))
        if keys
    ]
    if problems:
        raise WeightsError(
            f"these are not the weights of {of}; " + "; ".join(problems), where=where, fix=f"give the weights of {of}"
        )
    return {key: state[key] if key in state else torch.tensor(0) for key in shapes}


# Layers of the authors' class that its forward pass never calls.
_NEVER_CALLED = re.compile(
    r"backbone\.fc\.|decoder[2-5]\.sap\.|decoder5\.conv_3x3\.|sap\.(conv1x1|conv3x3_1|conv3x3_2)\.1\."
)

_POSITION = {"conv": "0", "bn": "1"}
_BRANCH = {"0.conv": "0.conv1", "1": "0.bn", "2": "0.pointwise", "3": "1"}
_ATTENTION = {"0": "conv1x1.0", "2": "conv3x3_1.0", "4": "conv3x3_2.0"}

# The beginnings of our names → those of the authors' names.
_OFFICIAL: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"encoder\.", lambda m: "backbone."),
    (r"gpg(\d)\.projections\.(\d)\.(conv|bn)", lambda m: f"mce_{m[1]}.conv{5 - int(m[2])}.{_POSITION[m[3]]}"),
    (r"gpg(\d)\.branches\.(\d)\.(0\.conv|\d)", lambda m: f"mce_{m[1]}.dilation{int(m[2]) + 1}.{_BRANCH[m[3]]}"),
    (r"gpg(\d)\.merge\.(conv|bn)", lambda m: f"mce_{m[1]}.conv_out.{_POSITION[m[2]]}"),
    (r"sapf\.sam\.attention\.(\d)", lambda m: f"sap.{_ATTENTION[m[1]]}"),
    (r"sapf\.conv\.", lambda m: "sap.conv3x3."),
    (r"sapf\.bns\.", lambda m: "sap.bn."),
    (r"sapf\.out\.", lambda m: "sap.conv_last."),
    (r"sapf\.", lambda m: "sap."),
    (r"decoder(\d)\.refine\.", lambda m: f"decoder{m[1]}.conv_3x3."),
    (r"decoder(\d)\.reduce\.", lambda m: f"decoder{m[1]}.conv_1x1."),
    (r"head\.reduce\.", lambda m: "main_head.conv_1x1_3x3.0."),
    (r"head\.refine\.", lambda m: "main_head.conv_1x1_3x3.1."),
    (r"head\.classify\.", lambda m: "main_head.conv_1x1_2."),
)


def _official_name(key: str) -> str:
    """The authors' name for one of our parameters."""
    return next(
        re.sub(pattern, name, key, count=1) for pattern, name in _OFFICIAL if re.match(pattern, key) is not None
    )


def import_official(state_dict: Mapping[str, Any]) -> State:
    """Turn a checkpoint of the authors' released class into the state dict of `CPFNet`.

    Layers that their forward pass never calls are dropped; channels and classes follow the checkpoint.

    Args:
        state_dict: theirs; wrapped under ``state_dict`` or with ``module.`` prefixes is fine.

    Returns:
        The state dict for ``CPFNet(in_channels, classes)``. Theirs returns log-softmax, ours logits.

    Raises:
        WeightsError: any other missing or unexpected key, or another shape, by the authors' names.
    """
    state = {key: value for key, value in unwrap(state_dict).items() if not _NEVER_CALLED.match(key)}
    stem, last = state.get("backbone.conv1.weight"), state.get("main_head.conv_1x1_2.weight")
    with torch.device("meta"):
        ours = CPFNet(3 if stem is None else stem.shape[1], 1 if last is None else last.shape[0]).state_dict()
    names = {_official_name(key): key for key in ours}
    matched = _match(state, {name: ours[key].shape for name, key in names.items()}, of="the authors' CPFNet")
    return {names[name]: value for name, value in matched.items()}


def read_resnet(file: Path | str, depth: int = PAPERS) -> State:
    """The tensors of a ResNet for RGB images, under torchvision's names and without the classifier ``fc``.

    Args:
        file: as for `read_state_dict`.
        depth: of the ResNet.

    Raises:
        WeightsError: as `read_state_dict`; or missing, unexpected or misshapen tensors, all named.
    """
    return _match_resnet(_without_classifier(file), depth, file)


def depth_of(file: Path | str) -> int:
    """Which ResNet a file holds the weights of.

    Raises:
        WeightsError: as `read_resnet`; where it is none of those that are known, what it lacks as the most similar.
    """
    state = _without_classifier(file)
    most_similar = max(BLOCKS, key=lambda depth: (len(_shapes(depth).items() & _shapes_of(state).items()), -depth))
    _match_resnet(state, most_similar, file)
    return most_similar


def _without_classifier(file: Path | str) -> State:
    return {key: value for key, value in read_state_dict(file).items() if not key.startswith("fc.")}


def _shapes_of(state: State) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


@cache
def _shapes(depth: int) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return _shapes_of(ResNetEncoder(3, depth=depth).state_dict())


def _match_resnet(state: State, depth: int, where: Path | str) -> State:
    return _match(state, _shapes(depth), of=f"a ResNet-{depth} for RGB images", where=where)


def imagenet_encoder(network: nn.Module) -> ResNetEncoder:
    """The part of a network into which ImageNet weights fit.

    Raises:
        WeightsError: it has none, or its width is another.
    """
    encoder = find_encoder(network)
    if encoder is None:
        raise WeightsError(
            f"{type(network).__name__} has no ResNet encoder to put ImageNet weights into",
            fix="train it from scratch, or choose cpfnet, cpfnet-hr, cpfnet-guide (with a ResNet) or resnet34-unet",
        )
    if encoder.width != WIDTH:
        raise WeightsError(
            f"ImageNet weights have {WIDTH} channels at the first level, and this {type(network).__name__} "
            f"{encoder.width}",
            fix=f"set network.options.width={WIDTH}, or train from scratch: network.weights=none",
        )
    return encoder


def load_imagenet(network: nn.Module, weights: Path | str = "imagenet", *, progress: bool = True) -> Path:
    """Load ImageNet weights into a network's ResNet encoder, in place.

    The first layer is fitted to the channels (see `fit_stem`). A 3-D encoder gets the 2-D filters inflated (Carreira
    and Zisserman, CVPR 2017): repeated along depth and divided by it, so that a volume that does not change along depth
    gives the same as one slice of it. They were trained on RGB in 0 … 1, normalised with mean (0.485, 0.456, 0.406) and
    standard deviation (0.229, 0.224, 0.225).

    Args:
        network: contains a `ResNetEncoder`, as `CPFNet`, `CPFNetHR` and `GuideCPFNet` do with ``encoder="resnet18"``,
            ``"resnet34"``, ``"resnet50"`` or ``"resnet101"``.
        weights: ``"imagenet"``: the first good file for this encoder in the caches of cpfnet, torch hub and
            huggingface, else a download; verified by its SHA-256. Or a file: torchvision's or timm's, or any state dict
            with those names (the classifier ``fc`` is dropped); verified where its name promises a hash.
        progress: show a bar while downloading.

    Returns:
        The file that was loaded.

    Raises:
        WeightsError: no such encoder, or one of another width (before anything is downloaded); the file is missing,
            damaged or another encoder's; or there is none here and none can be downloaded: the error says what to
            fetch, from where, and where to put it.

    Source:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016; the weights are torchvision's.

    Example:
        >>> network = cpfnet.CPFNet(in_channels=3, classes=2)
        >>> cpfnet.load_imagenet(network)
    """
    encoder = imagenet_encoder(network)
    file = find(weights, encoder=f"resnet{encoder.depth}", progress=progress)
    state = read_resnet(file, encoder.depth)
    state["conv1.weight"] = fit_stem(state["conv1.weight"], encoder.conv1.in_channels)
    target = encoder.state_dict()
    for key, value in state.items():
        if value.ndim == 4 and target[key].ndim == 5:
            depth = target[key].shape[2]
            state[key] = value.unsqueeze(2).expand(-1, -1, depth, -1, -1) / depth
    encoder.load_state_dict(state)
    return file


def fit_stem(weight: Tensor, channels: int) -> Tensor:
    """Fit RGB filters to any number of channels, so that equal channels give the same as their RGB copy.

    For multiples of three (stacks of colour or grey slices, slice-major), R, G, B are repeated and divided by the
    repetitions; for every other count, the sum over R, G, B is shared equally.

    Args:
        weight: ``(filters, 3, height, width)``.
        channels: channels wanted.

    Returns:
        ``(filters, channels, height, width)``.
    """
    if channels % 3 == 0:
        return weight.repeat(1, channels // 3, 1, 1) / (channels // 3)
    return weight.sum(dim=1, keepdim=True).repeat(1, channels, 1, 1) / channels
