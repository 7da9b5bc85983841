"""Prediction for tests: options by keyword, and messages as they come."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from cpfnet.inference.batch import run
from cpfnet.inference.batch.job import Outcome
from cpfnet.inference.options import OutputOptions, PredictorOptions

Listen = Callable[[str], Any]


class _Listener(logging.Handler):
    def __init__(self, listen: Listen):
        super().__init__(logging.INFO)
        self.listen = listen

    def emit(self, record: logging.LogRecord) -> None:
        self.listen(record.getMessage())


@contextmanager
def messages_to(listen: Listen) -> Iterator[None]:
    """Hand on each message of the package the moment it comes, but details: ``pytest.fail`` where none is expected."""
    logger, handler = logging.getLogger("cpfnet"), _Listener(listen)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def options_of(keywords: dict[str, Any]) -> tuple[PredictorOptions, OutputOptions]:
    """Options by keyword; what is theirs is taken out of the keywords."""
    how, what = (
        {field.name: keywords.pop(field.name) for field in fields(kind) if field.name in keywords}
        for kind in (PredictorOptions, OutputOptions)
    )
    return PredictorOptions(**how), OutputOptions(**what)


def predict_files(
    models: list, inputs: list, out: Path, *, listen: Listen = lambda message: None, **keywords: Any
) -> list[Outcome]:
    """As `cpfnet.inference.batch.run.predict_files`, with options and places side by side."""
    options, output = options_of(keywords)
    with messages_to(listen):
        return run.predict_files(models, inputs, out, options, output, **keywords)
