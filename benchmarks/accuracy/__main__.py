"""python -m benchmarks.accuracy COMMAND: see README.md beside this file."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.accuracy.kept import pack, unpack
from benchmarks.accuracy.protocol import PROTOCOLS
from benchmarks.accuracy.variants import ABLATION, DECISIONS, NETWORKS, PLAIN, SUPERVISED, Variant
from cpfnet.cli.app import fail
from cpfnet.errors import CpfnetError

OUT = Path("runs/accuracy")


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
        return value

    read.__name__ = kind.__name__  # so argparse calls it
    return read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description="Every accuracy figure, made again."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    runs = argparse.ArgumentParser(add_help=False)
    runs.add_argument("--data", type=Path, required=True, help="folder of the data set, as its recipe describes it")
    length = runs.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes", type=_positive(float), default=40, help="training of each run ends with them (default: 40)"
    )
    length.add_argument("--steps", type=_positive(int), help="optimiser steps instead of minutes")
    runs.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    runs.add_argument("--folds", type=int, nargs="+", default=[0])
    runs.add_argument("--device", default="auto")
    runs.add_argument("--memory", help="of a GPU to plan for, such as 24GiB (default: what is free here now)")
    runs.add_argument("--tta", action="store_true", help="judge predictions that are averaged over mirrored copies")
    runs.add_argument("--out", type=Path, default=OUT, help=f"where everything is kept (default: {OUT})")

    trained = argparse.ArgumentParser(add_help=False, parents=[runs])
    trained.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="change every plan"
    )
    for name, protocol in PROTOCOLS.items():
        command = commands.add_parser(name, parents=[trained], help=f"networks on {protocol.title}")
        command.add_argument("--networks", nargs="+", default=[v.name for v in NETWORKS])
    ablation = commands.add_parser("ablation", parents=[trained], help="the paper's ablation, and what goes beyond it")
    ablation.add_argument("dataset", choices=PROTOCOLS)
    names = [variant.name for variant in ABLATION]
    ablation.add_argument("--variants", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    nnunet = commands.add_parser("nnunet", parents=[runs], help="nnU-Net on the same cases, in its own environment")
    nnunet.add_argument("dataset", choices=PROTOCOLS)
    nnunet.add_argument("--configuration", choices=("2d", "3d_fullres"), default="2d")
    nnunet.add_argument("--full", action="store_true", help="nnU-Net's own schedule, whatever time it takes")

    table = commands.add_parser("table", help="Markdown tables from the rows of all runs")
    table.add_argument("out", type=Path, nargs="?", default=OUT)
    table.add_argument("--into", type=Path, metavar="PAGE", help="put them between the marks of this page")
    pack = commands.add_parser("pack", help="scores of all runs as one CSV and one JSON, for the repository")
    pack.add_argument("out", type=Path, nargs="?", default=OUT)
    pack.add_argument("--to", type=Path, required=True, metavar="NAME", help="the two files without their suffix")
    unpack = commands.add_parser("unpack", help="lay packed runs as folders, for table and `cpfnet compare`")
    unpack.add_argument("kept", type=Path, metavar="NAME", help="the two files without their suffix")
    unpack.add_argument("--out", type=Path, default=OUT, help=f"a new folder (default: {OUT})")
    pictures = commands.add_parser("pictures", help="boundaries side by side, from judged runs")
    pictures.add_argument("out", type=Path, nargs="?", default=OUT)
    pictures.add_argument("--dataset", choices=PROTOCOLS, default="chestxray")
    pictures.add_argument("--networks", nargs="+", default=["unet", "cpfnet-hr"])
    pictures.add_argument("--to", type=Path, required=True, metavar="PNG")
    pictures.add_argument("--into", type=Path, metavar="PAGE", help="show it between the marks of this page")
    return parser


def _each(options: argparse.Namespace, runs: Mapping[str, Callable[..., object]]) -> int:
    """All runs, one after the other; how many failed."""
    failed = 0
    for seed in options.seeds:
        for fold in options.folds:
            for name, run in runs.items():
                try:
                    run(fold=fold, seed=seed)
                except CpfnetError as error:  # the others still run
                    print(f"{name}, fold {fold}, seed {seed}: {error}", file=sys.stderr)
                    failed += 1
    return failed


def _train(options: argparse.Namespace) -> int:
    from benchmarks.accuracy.runs import Bench
    from cpfnet.network import zoo

    bench = Bench(
        PROTOCOLS[getattr(options, "dataset", options.command)],
        options.data,
        options.out,
        minutes=options.minutes,
        steps=options.steps,
        device=options.device,
        memory=options.memory,
        mirrored=options.tta,
        settings=tuple(getattr(options, "settings", ())),
    )
    for fold in options.folds:  # what is wrong with the data is said once, before anything is trained
        bench.dataset(fold)
    if options.command == "nnunet":
        from benchmarks.accuracy.nnunet import run

        return _each(options, {"nnU-Net": partial(run, bench, options.configuration, full=options.full)})
    if options.command == "ablation":
        variants = [variant for variant in ABLATION if variant.name in options.variants]
    else:
        decisions = DECISIONS.get(bench.protocol.name, ())
        known = {variant.name: variant for variant in (*NETWORKS, PLAIN, SUPERVISED, *decisions)}
        variants = [known.get(name, Variant(name, name)) for name in options.networks]  # or a network of one's own
    for variant in variants:
        zoo.NETWORKS.check_name(variant.network)  # a name that nothing is called by is refused here, too
    return _each(options, {variant.name: partial(bench.run, variant) for variant in variants})


def _table(options: argparse.Namespace) -> None:
    from benchmarks.accuracy.runs import rows
    from benchmarks.accuracy.table import fill, tables

    texts = tables(rows(options.out))
    if options.into is not None:
        print(f"{options.into}: filled {', '.join(fill(options.into, texts))}")
        return
    for name, text in texts.items():
        print(f"## {name}\n\n{text}")


def _pictures(options: argparse.Namespace) -> None:
    from benchmarks.accuracy.pictures import boundaries
    from benchmarks.accuracy.runs import rows
    from benchmarks.accuracy.table import fill

    mine = [row for row in rows(options.out) if row["dataset"] == options.dataset]
    cases = boundaries(mine, options.networks, options.to)
    print(f"{options.to}: {', '.join(cases)}")
    if options.into is not None:
        link = os.path.relpath(options.to, options.into.parent)
        fill(options.into, {"boundaries": f"![Boundaries of {', '.join(options.networks)}]({link})\n"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; every foreseeable failure ends in one message."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "table":
            _table(options)
        elif options.command == "pack":
            print(f"{pack(options.out, options.to)} runs, in {options.to}.csv and .json")
        elif options.command == "unpack":
            print(f"{unpack(options.kept, options.out)} runs, in {options.out}")
        elif options.command == "pictures":
            _pictures(options)
        elif _train(options):
            sys.exit(1)
    except CpfnetError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
