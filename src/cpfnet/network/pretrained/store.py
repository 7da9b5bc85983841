"""The files of ImageNet weights on this machine: find, list, import, verify and download them.

Files are searched in cpfnet's own cache, in torch hub's and in huggingface's; the latter two are never changed. torch
is imported only to read a file; hashes need no torch.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from cpfnet.errors import OutputError, WeightsError
from cpfnet.network.pretrained.download import fetch, sha256, writing_to

WEIGHTS_URL = "https://download.pytorch.org/models"
SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class Entry:
    """Known ImageNet weights.

    Attributes:
        name: as commands name them.
        encoder: that they are for.
        file: the file's name; torchvision puts the first 8 digits of its SHA-256 there.
        about: where the weights come from.
        sha256: the first digits of the file's SHA-256; None where the publisher gives none.
    """

    name: str
    encoder: str
    file: str
    about: str
    sha256: str | None = None

    @property
    def url(self) -> str:
        """Where to get the file; the environment variable CPFNET_WEIGHTS_URL replaces download.pytorch.org/models."""
        if self.sha256 is None:
            return f"https://huggingface.co/{self.name}/resolve/main/{self.file}"
        return f"{(os.environ.get('CPFNET_WEIGHTS_URL') or WEIGHTS_URL).rstrip('/')}/{self.file}"


def _torchvision(encoder: str, digits: str, about: str) -> Entry:
    return Entry(f"{encoder}-{digits}", encoder, f"{encoder}-{digits}.pth", f"torchvision, {about}", digits)


def _timm(encoder: str, size: str) -> Entry:
    about = f"timm on huggingface (Wightman et al. 2021, A1), {size}"
    return Entry(f"timm/{encoder}.a1_in1k", encoder, "model.safetensors", about)


ENTRIES = {
    entry.name: entry
    for entry in (
        _torchvision("resnet34", "b627a593", "IMAGENET1K_V1, 83 MB"),
        _torchvision("resnet34", "333f7ec4", "until 2021, 83 MB"),
        _timm("resnet34", "87 MB"),
        _torchvision("resnet18", "f37072fd", "IMAGENET1K_V1, 45 MB"),
        _timm("resnet18", "47 MB"),
        _torchvision("resnet50", "0676ba61", "IMAGENET1K_V1, 98 MB"),
        _torchvision("resnet50", "11ad3fa6", "IMAGENET1K_V2, 98 MB"),
        _timm("resnet50", "102 MB"),
        _torchvision("resnet101", "63fe2227", "IMAGENET1K_V1, 171 MB"),
        _torchvision("resnet101", "cd907fc2", "IMAGENET1K_V2, 171 MB"),
        _timm("resnet101", "178 MB"),
    )
}
ENCODERS = tuple(dict.fromkeys(entry.encoder for entry in ENTRIES.values()))
"""Those that there are ImageNet weights for, the paper's first."""
_HASHED = {entry.file: entry for entry in ENTRIES.values() if entry.sha256}


@dataclass(frozen=True)
class WeightFile:
    """A weight file on this machine.

    Attributes:
        path: the file.
        place: whose cache it is in: ``"cpfnet"``, ``"torch hub"``, ``"huggingface"``; ``"given"`` for a file named
            by the user.
        problem: what `verify` found wrong with it, else None.
        encoder: whose weights `verify` found in it, else None.
    """

    path: Path
    place: str
    problem: str | None = None
    encoder: str | None = None


def default(encoder: str = ENCODERS[0]) -> Entry:
    """What is downloaded for an encoder.

    Raises:
        WeightsError: nothing is known for it.
    """
    for entry in ENTRIES.values():
        if entry.encoder == encoder:
            return entry
    raise WeightsError(
        f"no ImageNet weights are known for {encoder!r}", fix=f"known are those of {', '.join(ENCODERS)}"
    )


def cache_folder() -> Path:
    """cpfnet's own folder for weights (it need not exist yet); the environment variable CPFNET_CACHE moves it."""
    root = os.environ.get("CPFNET_CACHE") or platformdirs.user_cache_dir("cpfnet", appauthor=False)
    return Path(root).expanduser().absolute() / "weights"


def _torch_folder() -> Path:
    home = os.environ.get("TORCH_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def _huggingface_folder() -> Path:
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def list_files() -> list[WeightFile]:
    """Every weight file in the caches, in the order in which `find` tries them; nothing is opened or verified."""
    own, hub, huggingface = cache_folder(), _torch_folder(), _huggingface_folder()
    imported = sorted(path for path in own.glob("[!.]*") if path.suffix in SUFFIXES and path.name not in _HASHED)
    snapshots = (huggingface.glob(f"models--timm--{encoder}.*/snapshots/*/model.safetensors") for encoder in ENCODERS)
    timm = [path for found in snapshots for path in sorted(found)]
    files = [
        *(WeightFile(own / file, "cpfnet") for file in _HASHED),
        *(WeightFile(path, "cpfnet") for path in imported),
        *(WeightFile(hub / file, "torch hub") for file in _HASHED),
        *(WeightFile(path, "huggingface") for path in timm),
    ]
    return [item for item in files if item.path.is_file()]


def _promised_hash(path: Path) -> str | None:
    """The first digits of the SHA-256 that a name promises, or None.

    Known names promise one, and those that `import_file` gave. A snapshot of huggingface links to a blob that is named
    by its whole hash. Digits in other names may be a date.
    """
    blob = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", blob):
        return blob
    if path.name in _HASHED:
        return _HASHED[path.name].sha256
    given = re.search(r"-([0-9a-f]{8})$", path.stem)
    return given[1] if given and path.absolute().parent == cache_folder() else None


def _hash_problem(path: Path) -> str | None:
    """How a file's hash differs from the promised one, or None."""
    promised = _promised_hash(path)
    digest = sha256(path) if promised else ""
    if promised is None or digest.startswith(promised):
        return None
    return f"damaged or another file: its SHA-256 begins with {digest[:8]}, expected {promised[:8]}"


def _examined(path: Path) -> tuple[str | None, str | None]:
    """Which encoder's a weight file is, and what is wrong with it; one of the two is None.

    The hash is checked if one is promised, keys and shapes if its name is unknown.
    """
    from cpfnet.network.pretrained.load import depth_of

    try:
        if (problem := _hash_problem(path)) is not None:
            return None, problem
        return (_HASHED[path.name].encoder if path.name in _HASHED else f"resnet{depth_of(path)}"), None
    except WeightsError as error:
        return None, error.what
    except OSError as error:
        return None, f"cannot be read: {error.strerror or error}"


def _existing(path: Path | str) -> Path:
    file = Path(path).expanduser()
    fix = "give a .pth or .safetensors file; `cpfnet weights list` shows those found here"
    try:
        with file.open("rb"):
            return file
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror}", where=file, fix=fix) from None


def verify(path: Path | str | None = None) -> list[WeightFile]:
    """Check one file, or all in the caches.

    The SHA-256 is checked where a name promises one; keys and shapes are checked where the name is unknown.

    Returns:
        The files, each with its `problem`, or the `encoder` that it is for.

    Raises:
        WeightsError: the given file does not exist.
    """
    files = list_files() if path is None else [WeightFile(_existing(path), "given")]
    examined = ((item, *_examined(item.path)) for item in files)
    return [replace(item, encoder=encoder, problem=problem) for item, encoder, problem in examined]


def find(weights: Path | str = "imagenet", *, encoder: str = ENCODERS[0], progress: bool = True) -> Path:
    """The file to load: the one given, or the first good one in the caches, or a fresh download.

    Args:
        weights: ``"imagenet"`` or a file (its keys are checked when it is loaded).
        encoder: whose weights; of `ENCODERS`.
        progress: show a bar while downloading.

    Raises:
        WeightsError: the given file is missing or damaged; or no file is here and none can be downloaded: the error
            says what to fetch, from where, and where to put it.
    """
    if str(weights) != "imagenet":
        file = _existing(weights)
        if problem := _hash_problem(file):
            raise WeightsError(problem, where=file, fix="fetch it again, or give another file")
        return file
    wanted, unusable = default(encoder), []
    for item in list_files():
        if item.path.name in _HASHED and _HASHED[item.path.name].encoder != encoder:
            continue
        found, problem = _examined(item.path)
        if found == encoder:
            return item.path
        if problem is not None:
            unusable.append(f"{item.path} is {problem}")
    try:
        return download(wanted.name, progress=progress)
    except (WeightsError, OutputError) as error:
        places = f"{cache_folder()}, {_torch_folder()}, {_huggingface_folder()}"
        raise WeightsError(
            f"no ImageNet weights of {encoder} in {places}{''.join(f'; {text}' for text in unusable)}; "
            f"and the download failed: {f'{error.where}: ' if error.where else ''}{error.what}",
            fix=f"fetch {wanted.url} on a machine that is online, bring it here and run "
            f"`cpfnet weights import {wanted.file}` (or copy it into {cache_folder()}); "
            "or plan and train from scratch with --weights none",
        ) from None


def import_file(path: Path | str) -> Path:
    """Copy a file of ImageNet weights into the cache, after checking it.

    The name of the copy holds the first 8 digits of its SHA-256, so that `verify` can check it later.

    Args:
        path: torchvision's or timm's file of one of `ENCODERS`, or any state dict with the same keys (torch or
            safetensors).

    Returns:
        The file in the cache.

    Raises:
        WeightsError: missing, damaged, or no such encoder's.
        OutputError: the cache cannot be written.
    """
    source = _existing(path)
    if source.suffix not in SUFFIXES:
        fix = f"give a file that ends in {', '.join(SUFFIXES)}"
        raise WeightsError(f"unknown kind of weight file {source.suffix!r}", where=source, fix=fix)
    if problem := _examined(source)[1]:
        raise WeightsError(
            problem,
            where=source,
            fix=f"give the file from {default().url}, as it was fetched, or the tensors alone as .safetensors",
        )
    digest = f"-{sha256(source)[:8]}"
    target = cache_folder() / f"{source.stem.removesuffix(digest)}{digest}{source.suffix}"
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with writing_to(target.parent):
        try:
            shutil.copyfile(source, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return target


def download(name: str | None = None, *, url: str | None = None, progress: bool = True) -> Path:
    """Fetch known weights into the cache (see `cpfnet.network.pretrained.download.fetch`).

    Args:
        name: a key of `ENTRIES`, or one of `ENCODERS`; default: the paper's encoder.
        url: a mirror's folder; default: CPFNET_WEIGHTS_URL, else download.pytorch.org/models.
        progress: show a bar.

    Returns:
        The file in the cache; a file that exists and is right is not fetched again.

    Raises:
        WeightsError: no such entry, no connection, or a wrong hash (then nothing is kept).
        OutputError: the cache cannot be written.
    """
    entry = default(name or ENCODERS[0]) if name is None or name in ENCODERS else ENTRIES.get(name)
    if entry is None:
        raise WeightsError(f"no weights are known as {name!r}", fix=f"known: {', '.join((*ENCODERS, *ENTRIES))}")
    if entry.sha256 is None:
        raise WeightsError(
            "its publisher gives no hash to verify it by",
            where=entry.url,
            fix=f"fetch it yourself (`hf download {entry.name} {entry.file}`): huggingface's cache is looked through; "
            f"or download {default(entry.encoder).name}",
        )
    target = cache_folder() / entry.file
    fetch(f"{url.rstrip('/')}/{entry.file}" if url else entry.url, target, entry.sha256, progress=progress)
    return target
