"""A process that gives no answer is told from an image that cannot be worked on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fastapi import FastAPI

from cpfnet.errors import CpfnetError
from cpfnet.serve import image_process
from cpfnet.serve.files import FileStore
from cpfnet.serve.http.problems import answer_problems
from cpfnet.serve.image_process import ImageProcess, NoAnswer


def test_one_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_process, "PATIENCE", 0.0)
    with pytest.raises(NoAnswer, match="could not work on the image"):
        asyncio.run(ImageProcess(FileStore(tmp_path / "files"), tmp_path).do("describe", tmp_path, input="a"))


@pytest.mark.parametrize(("error", "status"), [(NoAnswer("no answer"), 503), (CpfnetError("damaged"), 422)])
def test_whose_fault_it_is(error: CpfnetError, status: int) -> None:
    app = FastAPI()
    answer_problems(app)
    answer = asyncio.run(app.exception_handlers[CpfnetError](None, error))  # type: ignore[arg-type]
    assert answer.status_code == status
