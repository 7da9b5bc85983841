"""What an interrupted run left: what is done, what is to be made again, and what somebody else has changed since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cpfnet.errors import OutputError
from cpfnet.inference.batch import records
from cpfnet.inference.batch.job import Job, Order

_HOW = "it was kept: write to another folder (-o), or have it replaced by adding --overwrite to the same command"


def recall(job: Job, order: Order) -> None:
    """End a job whose results exist and are what would be made again; else note why they are not (`Job.again`).

    Raises:
        OutputError: a file in the way is nobody's, or was changed since it was made; with ``overwrite`` it may be
            replaced.
        CpfnetError, OSError: the input cannot be read.
    """
    if not order.output.resume:
        return
    out, name = order.out, job.item.name
    try:
        record = records.find(out, name)
    except ValueError:
        job.again = "the record of how it was made was damaged"
        return
    if record is None:
        job.again = "; ".join(_unknown(job.wanted, order))
        return
    if record.writing:
        job.again = "an earlier run ended while it was being written"
        return
    job.content = records.content_of(job.item.files)
    reasons = record.differences(job.content.digest, order.recipe, order.options.force)
    reasons += _unknown({pattern: path for pattern, path in job.wanted.items() if pattern not in record.files}, order)
    known = {pattern: path for pattern, path in job.wanted.items() if pattern in record.files and path.exists()}
    for pattern, path in known.items():
        reasons += _wrong_with(path, pattern, record.files[pattern], order)
    job.again = "; ".join(dict.fromkeys(reasons))
    if reasons or known.keys() < job.wanted.keys():  # what is not there is made without a word
        return
    job.output, job.warnings, job.quality = next(iter(job.wanted.values())), record.warnings, record.quality
    job.already_done = True
    job.end("done")


def _unknown(paths: Mapping[str, Path], order: Order) -> list[str]:
    """Files that no record knows were made by hand, by an older version, or by another tool."""
    reasons = []
    for pattern, path in paths.items():
        if not path.exists():
            continue
        if path.is_file() and not path.stat().st_size:
            reasons.append(f"{_what(pattern)} was empty")
        elif order.output.overwrite:
            reasons.append(f"no record told what {_what(pattern)} was made from")
        else:
            raise OutputError("exists already, and no record tells what it was made from", where=path, fix=_HOW)
    return reasons


def _wrong_with(path: Path, pattern: str, digest: str, order: Order) -> list[str]:
    if records.sha256_now(path) == digest:
        return []
    if not path.stat().st_size:
        return [f"{_what(pattern)} was empty"]
    if not records.is_whole(path, pattern):
        return [f"{_what(pattern)} was damaged"]
    if not order.output.overwrite:
        raise OutputError("was changed after it was made", where=path, fix=_HOW)
    return [f"{_what(pattern)} was changed after it was made"]


def _what(pattern: str) -> str:
    """Which result, not whose: so that one reason reads the same for all inputs."""
    return f"its {pattern.partition('/')[0]}" if "/" in pattern else "its mask"
