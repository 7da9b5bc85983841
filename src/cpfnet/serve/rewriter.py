"""Masks of jobs that are done in other formats, each written by a process of its own, and kept.

``python -m cpfnet.serve.rewriter`` is that process: the server's own has no time for it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cpfnet.errors import CpfnetError
from cpfnet.formats import OutputFormat
from cpfnet.model import Model
from cpfnet.serve.jobs.job import Job, Result
from cpfnet.serve.store import Store, StoreOptions

PATIENCE = 600.0
"""Seconds after which a process that writes is given up."""


class Rewriter:
    """Writes one mask at a time, so that the memory of one suffices.

    Args:
        options: of the store.
    """

    def __init__(self, options: StoreOptions):
        self.options = replace(options, folder=options.folder.absolute())
        self._one = asyncio.Lock()

    async def rewrite(self, job: Job, format: OutputFormat, model: Path) -> Result:
        """See `cpfnet.serve.segment.rewrite`.

        Args:
            job, format: what.
            model: folder of its Model.

        Raises:
            CpfnetError: the format cannot hold it, or it took too long.
        """
        who = {"job": job.id, "user": job.request.user}
        order = who | {"store": asdict(self.options), "model": model.absolute(), "format": format}
        async with self._one:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cpfnet.serve.rewriter"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(PATIENCE):
                    said, _ = await process.communicate(json.dumps(order, default=str).encode())
            except TimeoutError:
                said = b""
            finally:
                if process.returncode is None:
                    process.kill()
        answer: dict[str, Any] = json.loads(said or b'{"what": "the mask could not be written", "fix": "try again"}')
        if "what" in answer:
            raise CpfnetError(answer["what"], fix=answer["fix"])
        return Result(**answer)


def main() -> None:
    from cpfnet.serve.segment import rewrite
    from cpfnet.serve.worker import own_stdout

    channel, order = own_stdout(), json.load(sys.stdin)
    options = StoreOptions(**order["store"] | {"folder": Path(order["store"]["folder"])})
    answer: dict[str, Any]
    try:
        store = Store(options)
        job = store.jobs.get(order["job"], order["user"])
        if job is None:
            raise CpfnetError("the job was deleted", fix="send the image again")
        answer = asdict(rewrite(job, order["format"], store, Model.load(order["model"]).plan))
    except CpfnetError as error:
        answer = {"what": error.what, "fix": error.fix}
    print(json.dumps(answer), file=channel)


if __name__ == "__main__":
    main()
