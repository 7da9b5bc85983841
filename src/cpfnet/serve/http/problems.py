"""Errors as problem details (RFC 9457): what is wrong, and in ``hint`` how to fix it; never a traceback or a path."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from cpfnet.errors import CpfnetError, redacted_message
from cpfnet.serve.cases.case_store import Conflict
from cpfnet.serve.cases.labelling import OtherTask
from cpfnet.serve.image_process import NoAnswer
from cpfnet.serve.jobs.job_store import QueueFull
from cpfnet.text import printable

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

RETRY = 10
"""Seconds after which it may be worth another try."""


class Problem(Exception):
    """Ends a request.

    Args:
        status: of HTTP.
        what: is wrong.
        fix: what to do about it.
    """

    def __init__(self, status: int, what: str, fix: str | None = None):
        self.status, self.what, self.fix = status, what, fix
        super().__init__(what)


def problem(status: int, what: str, fix: str | None = None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer."""
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": printable(what)}
    if fix is not None:
        content["hint"] = printable(fix)
    return JSONResponse(content, status, dict(headers or {}), MEDIA_TYPE)


def answer_problems(app: FastAPI) -> None:
    """Have all errors of an app answered in this way."""

    @app.exception_handler(Problem)
    async def own(request: Request, error: Problem) -> JSONResponse:
        return problem(error.status, error.what, error.fix)

    @app.exception_handler(CpfnetError)
    async def refused(request: Request, error: CpfnetError) -> JSONResponse:
        if isinstance(error, QueueFull):
            return problem(429, error.what, error.fix, {"Retry-After": str(RETRY)})
        status = {Conflict: 412, OtherTask: 409, NoAnswer: 503}.get(type(error), 422)
        return problem(status, error.what, error.fix)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = " ".join(map(str, first["loc"]))
        return problem(422, f"{place}: {first['msg']}", "see /api/v1/openapi.json")

    @app.exception_handler(DBAPIError)
    async def of_database(request: Request, error: DBAPIError) -> JSONResponse:
        logger.error("the job store does not answer: %s", redacted_message(error))
        return problem(503, "the job store does not answer", "try again later", {"Retry-After": str(RETRY)})

    @app.exception_handler(OSError)
    async def of_system(request: Request, error: OSError) -> JSONResponse:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return problem(507, "the disk of the server is full", "free space on it, then send it again")
        return unexpected(error)

    @app.exception_handler(Exception)
    async def others(request: Request, error: Exception) -> JSONResponse:
        return unexpected(error)


def unexpected(error: Exception) -> JSONResponse:
    """For what nobody foresaw: the log says more than the answer."""
    logger.error("%s: %s", type(error).__name__, redacted_message(error))
    return problem(500, "the server failed", "its log says more")
