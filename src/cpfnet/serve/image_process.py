"""What a server does with pixels: in a process of its own, one thing at a time, since requests must not wait for it.

``python -m cpfnet.serve.image_process`` is that process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal

from cpfnet.errors import CpfnetError
from cpfnet.model import Model
from cpfnet.serve.files import FileStore
from cpfnet.serve.own_stdout import own_stdout

PATIENCE = 600.0
"""Seconds after which it is given up."""

Task = Literal["rewrite", "describe", "check_label"]
"""Functions of `cpfnet.serve.label_maps`."""


class NoAnswer(CpfnetError):
    """The process died or took too long: the fault is the server's, not the request's."""


class ImageProcess:
    """Does one task at a time, so that the memory of one suffices.

    Args:
        files: where they are.
        work: a folder on the same disk.
    """

    def __init__(self, files: FileStore, work: Path):
        self.files, self.work = files.folder, work.absolute()
        self._one = asyncio.Lock()

    async def do(self, task: Task, model: Path, **arguments: str) -> dict[str, Any]:
        """Have a function of `cpfnet.serve.label_maps` called.

        Args:
            task: its name.
            model: folder of the Model whose plan it takes.
            arguments: of the function.

        Returns:
            What it returns, as JSON has it.

        Raises:
            CpfnetError: the function's.
            NoAnswer: the process died, or took too long.
        """
        places = {"files": str(self.files), "work": str(self.work), "model": str(model.absolute())}
        order = places | {"task": task, "arguments": arguments}
        async with self._one:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "cpfnet.serve.image_process"),  # -P: no code of the current folder
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(PATIENCE):
                    said, _ = await process.communicate(json.dumps(order).encode())
            except TimeoutError:
                said = b""
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if not said:
            raise NoAnswer("the server could not work on the image", fix="try again; its log says more")
        answer: dict[str, Any] = json.loads(said)
        if "error" in answer:
            raise CpfnetError(answer["error"], where=answer["where"], fix=answer["fix"])
        found: dict[str, Any] = answer["found"]
        return found


def main() -> None:
    from cpfnet.serve import label_maps  # what the server itself does without

    channel, order = own_stdout(), json.load(sys.stdin)
    files, work = FileStore(Path(order["files"])), Path(order["work"])
    try:
        plan = Model.load(order["model"]).plan
        found = getattr(label_maps, order["task"])(files, work, plan, **order["arguments"])
        answer = {"found": asdict(found) if is_dataclass(found) and not isinstance(found, type) else found}
    except CpfnetError as error:
        answer = {"error": error.what, "where": error.where, "fix": error.fix}
    print(json.dumps(answer), file=channel)


if __name__ == "__main__":
    main()
