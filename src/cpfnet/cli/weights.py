"""``cpfnet weights``: ImageNet weights for the encoder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from cpfnet.cli.console import put
from cpfnet.cli.options import App
from cpfnet.errors import CpfnetError

logger = logging.getLogger(__name__)

app = App(no_args_is_help=True, help="ImageNet weights for the encoder: list, import, verify, download, path.")

OfEncoder = Annotated[str, typer.Option(help="resnet18, resnet34, resnet50 or resnet101.")]


@app.command("list")
def weights_list() -> None:
    """Show the known weight files, and those that lie on this machine.

    Examples:

    - `cpfnet weights list`
    """
    from cpfnet.network.pretrained import store

    found = store.list_files()
    for entry in store.ENTRIES.values():
        put(f"{entry.name}: {entry.about}\n  {entry.url}")
    if found:
        put("On this machine, in the order they are tried:")
    for item in found:
        put(f"  {item.path} ({item.place})")
    if not found:
        logger.info("None on this machine yet: cpfnet weights download, or cpfnet weights import FILE")


@app.command("import")
def weights_import(file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]) -> None:
    """Check a weight file that you have and copy it where training finds it.

    Examples:

    - `cpfnet weights import ~/Downloads/resnet34-b627a593.pth`
    """
    from cpfnet.network.pretrained import store

    put(str(store.import_file(file)))


@app.command("verify")
def weights_verify(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", show_default=False)] = None,
) -> None:
    """Check the hash, keys and shapes of one file, or of all on this machine. Exit code 1 if any is bad.

    Examples:

    - `cpfnet weights verify`
    """
    from cpfnet.network.pretrained import store

    found = store.verify(file)
    if not found:
        logger.info("No weight file on this machine: cpfnet weights download, or cpfnet weights import FILE")
    for item in found:
        put(f"{item.path}: {item.problem or f'good, for {item.encoder}'}")
    if any(item.problem for item in found):
        raise typer.Exit(1)


@app.command("download")
def weights_download(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="One of `cpfnet weights list`, or an encoder.", show_default=False),
    ] = None,
) -> None:
    """Download ImageNet weights: resumed when cut, verified by hash.

    Examples:

    - `cpfnet weights download`
    - `cpfnet weights download resnet50`
    - `cpfnet weights download resnet34-333f7ec4`
    """
    from cpfnet.network.pretrained import store

    put(str(store.download(name)))


@app.command("path")
def weights_path(encoder: OfEncoder = "resnet34") -> None:
    """Print the file that `--weights imagenet` would use now, without downloading; exit code 1 if there is none.

    Examples:

    - `cpfnet weights path`
    - `cpfnet weights path --encoder resnet50`
    """
    from cpfnet.network.pretrained import store

    entry = store.default(encoder)
    good = [found.path for found in store.verify() if found.encoder == encoder]
    if not good:
        raise CpfnetError(
            f"no ImageNet weights of {encoder} on this machine",
            where=store.cache_folder(),
            fix=f"cpfnet weights download {entry.name}, or cpfnet weights import FILE",
        )
    put(str(good[0]))
