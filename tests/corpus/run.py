"""Each mutant in a process of its own: watched for crash, hang, memory, noise, and writing where it should not."""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpfnet.errors import CpfnetError
from tests.corpus.judge import LIBRARIES, USES, Defect, refusal
from tests.corpus.mutant import OTHER, REFUSED, SAME, Make, Mutant

SECONDS = 10
"""Processor time that an input may take; three times as much on the clock."""
MEMORY = 2**30
"""Bytes that an input may take beyond what Python and the libraries take."""
# libtiff, inside Pillow, says on stderr what it cannot decode, and offers Python no way to hush it.
_LIBTIFF = re.compile(r"(tempfile\.tif|\w*Decode\w*|JPEGLib|Fax\w*): .*")
_GUARD = 6 * 2**30  # of address space: protects the machine, is not what is measured
_FORBIDDEN = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "shutil.",
    "tempfile.",
    "os.chmod",
    "os.truncate",
)


@dataclass(frozen=True)
class Result:
    """What came of a mutant.

    Attributes:
        mutant: which.
        outcome: ``same``, ``other`` or ``refused``; else what is wrong: ``traceback``, ``hang``, ``crash`` …
        words: the refusal, or what went wrong.
        seconds: on the clock.
        memory: bytes beyond the start.
    """

    mutant: Mutant
    outcome: str
    words: str
    seconds: float
    memory: int

    @property
    def right(self) -> bool:
        return self.outcome in self.mutant.may


def _watch(violations: list[str]) -> None:
    """Note whatever would change the disk or leave the process; reading is free."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writing = event == "open" and (
            isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        )
        if (writing and str(arguments[0]) != os.devnull) or event.startswith(_FORBIDDEN):
            violations.append(f"{event} {arguments[0]!r}" if arguments else event)

    sys.addaudithook(hook)


def _tree(root: Path) -> set[tuple[str, int, int]]:
    return {(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in root.rglob("*")}


def _judge(mutant: Mutant, target: Path, sound: str | None) -> tuple[str, str]:
    try:
        found = USES[mutant.use](target)
    except CpfnetError as error:
        try:
            return REFUSED, refusal(error, target)
        except Defect as defect:
            return "unclear", str(defect)
    except Defect as defect:
        return "disagrees", str(defect)
    except BaseException:
        return "traceback", traceback.format_exc()
    return (SAME if found == sound else OTHER), found


def _child(mutant: Mutant, target: Path, sound: str | None, noise: int, answer: int) -> None:
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    os.chdir(target.parent)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _GUARD, used + _GUARD))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    violations: list[str] = []
    _watch(violations)
    outcome, words = _judge(mutant, target, sound)
    if violations:
        outcome, words = "wrote", "; ".join(violations[:5])
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) * 1024
    os.write(answer, json.dumps([outcome, words[:20_000], memory]).encode())


def _run(mutant: Mutant, target: Path, sound: str | None) -> Result:
    begun = time.monotonic()
    with tempfile.TemporaryFile() as noise:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(read)
                _child(mutant, target, sound, noise.fileno(), write)
            finally:
                os._exit(0)
        os.close(write)
        answer = b""
        while select.select([read], [], [], max(0.0, begun + 3 * SECONDS - time.monotonic()))[0]:
            part = os.read(read, 65536)
            if not part:
                break
            answer += part
        else:
            os.kill(pid, signal.SIGKILL)
        os.close(read)
        status = os.waitpid(pid, 0)[1]
        seconds = time.monotonic() - begun
        noise.seek(0)
        lines = noise.read().decode("utf-8", "replace").splitlines()
        printed = "\n".join(line for line in lines if line.strip() and not _LIBTIFF.fullmatch(line))
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hung = number in (signal.SIGKILL, signal.SIGXCPU)
        return Result(mutant, "hang" if hung else "crash", f"signal {number}\n{printed}", seconds, 0)
    if not answer:
        return Result(mutant, "crash", f"no answer\n{printed}", seconds, 0)
    outcome, words, memory = json.loads(answer)
    if outcome in (SAME, OTHER, REFUSED):
        if printed:
            outcome, words = "noise", printed
        elif memory > MEMORY or "does not fit into memory" in words:  # on a larger machine it would fit
            outcome, words = "memory", f"{memory / 2**20:.0f} MiB; {words}"
    return Result(mutant, outcome, words, seconds, memory)


def _attempt(mutant: Mutant, make: Make, sound: str | None) -> Result:
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        root = Path(folder).resolve()
        (root / "outside").mkdir()
        (root / "case").mkdir()
        target = make(root / "case")
        before = _tree(root)
        result = _run(mutant, target, sound)
        changed = _tree(root) ^ before
        if changed:
            result = Result(mutant, "wrote", repr(sorted(changed)[:5]), result.seconds, result.memory)
    return result


def run(mutants: Iterable[Mutant]) -> Iterable[Result]:
    """Try them one by one.

    Raises:
        RuntimeError: an unharmed file is not read: then the rest would prove nothing.
    """
    sound: dict[tuple[str, Make], str] = {}
    for mutant in mutants:
        for library in LIBRARIES.get(mutant.use, ()):
            importlib.import_module(library)  # once, here: not in every process, and not counted as its writing
        expected = None
        if mutant.sound is not None:
            key = (mutant.use, mutant.sound)
            if key not in sound:
                unharmed = _attempt(mutant, mutant.sound, None)
                if unharmed.outcome != OTHER:
                    raise RuntimeError(f"{mutant.family}, {mutant.name}: the unharmed file is not read: {unharmed}")
                sound[key] = unharmed.words
            expected = sound[key]
        yield _attempt(mutant, mutant.make, expected)


def table(results: list[Result]) -> str:
    """Count by format and outcome, as Markdown."""
    outcomes = [SAME, OTHER, REFUSED]
    wrong = sorted({result.outcome for result in results if not result.right and result.outcome not in outcomes})
    families = list(dict.fromkeys(result.mutant.family for result in results))
    lines = [
        "| format | inputs | read as unharmed | read, other value | refused | wrong | slowest, s | most memory, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for family in [*families, "all"]:
        own = [r for r in results if family in (r.mutant.family, "all")]
        count = Counter(r.outcome if r.right else "wrong" for r in own)
        lines.append(
            f"| {family} | {len(own)} | {count[SAME]} | {count[OTHER]} | {count[REFUSED]} | {count['wrong']} "
            f"| {max(r.seconds for r in own):.1f} | {max(r.memory for r in own) / 2**20:.0f} |"
        )
    return "\n".join([*lines, *([f"\nwrong: {', '.join(wrong)}"] if wrong else [])])
