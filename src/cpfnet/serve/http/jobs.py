"""``/api/v1/jobs``: send an image, see how far it is, fetch what was made of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast, get_args

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from cpfnet.formats import OutputFormat, suffix_of
from cpfnet.formats.writing import mask_suffix
from cpfnet.serve.http.models import Served
from cpfnet.serve.http.problems import Problem
from cpfnet.serve.http.service import Service, of_request
from cpfnet.serve.http.upload import receive
from cpfnet.serve.jobs.job import ACTIVE, LABELS, Job, Result
from cpfnet.serve.jobs.job import Request as JobRequest
from cpfnet.serve.jobs.options import JobOptions

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])

FIRST_LOOK, LAST_LOOK = 0.01, 0.25
"""Seconds between two looks at a job that somebody waits for: at first, and later."""

KEEP_ALIVE = 15.0
"""Seconds after which a stream says that it lives."""

Kind = Literal["mask", "overlay", "probabilities", "uncertainty"] | OutputFormat

Here = Annotated[Service, Depends(of_request)]
Wait = Annotated[float, Query(ge=0, description="seconds to wait for the end of the job, up to the server's limit")]

_BODY = {
    "requestBody": {
        "required": True,
        "description": "one image: a file, the files of a DICOM series, or a ZIP of them",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    }
}
_EXAMPLE = {
    "id": "0c7a…",
    "state": "done",
    "model": "vessels",
    "progress": 1.0,
    "results": {"mask": {"name": "eye.png", "url": "/api/v1/jobs/0c7a…/result?format=mask"}},
    "quality": {"confidence": 0.93, "dice": 0.81, "error": 0.02, "look": ""},
}
_JOB: dict[int | str, dict[str, Any]] = {
    200: {"description": "the job", "content": {"application/json": {"example": _EXAMPLE}}}
}
_PROBLEM: dict[str, Any] = {"description": "a problem (RFC 9457)", "content": {"application/problem+json": {}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the description of a route."""
    return dict.fromkeys(statuses, _PROBLEM)


@router.post("", status_code=202, openapi_extra=_BODY, responses=_JOB | problems(400, 408, 413, 422, 429, 507))
async def submit(
    request: Request,
    service: Here,
    model: Annotated[str | None, Query(description="of /api/v1/models; default: the only one")] = None,
    name: Annotated[str | None, Query(description="of a raw body: its file name, with the suffix")] = None,
    format: Annotated[OutputFormat, Query(description="of the mask")] = "same",
    tta: Annotated[bool, Query(description="average over mirrored and turned copies")] = False,
    force: Annotated[bool, Query(description="go on where the image is not of the Model's kind")] = False,
    overlay: Annotated[bool, Query(description="make a picture with the outlines, too")] = False,
    probabilities: bool = False,
    uncertainty: bool = False,
    priority: Annotated[int, Query(ge=-100, le=100, description="the higher, the sooner")] = 0,
    wait: Wait = 0,
) -> JSONResponse:
    """Have an image segmented; once this answers, the job is not lost. The same asked twice is one job."""
    chosen = _model(service, model)
    options = JobOptions(format, tta, force, overlay, probabilities, uncertainty)
    digest = await receive(request, name, service.store.files, service.limits)
    asked = JobRequest(digest, chosen.digest, options.as_json())
    jobs = service.store.jobs
    job, new = await run_in_threadpool(jobs.submit, asked, priority=priority, most=service.limits.queue)
    if new:
        await run_in_threadpool(service.pool.wake)
    job = await _finished(service, job, wait)
    return JSONResponse(as_json(service, job), 202 if job.state in ACTIVE else 200, {"Location": _url(job)})


@router.get("/{id}", responses=_JOB | problems(404))
async def show(id: str, service: Here, wait: Wait = 0) -> JSONResponse:
    """How far a job is, how good its result probably is, and why to look at it."""
    return JSONResponse(as_json(service, await _finished(service, await find_job(service, id), wait)))


@router.get("/{id}/events", response_class=StreamingResponse, responses=problems(404))
async def events(id: str, service: Here) -> StreamingResponse:
    """The job whenever it changes, as server-sent events, until it ends."""
    stream = _changes(service, await find_job(service, id))
    return StreamingResponse(stream, media_type="text/event-stream")


@router.get("/{id}/result", response_class=FileResponse, responses=problems(404, 409, 422))
async def result(
    id: str,
    service: Here,
    format: Annotated[
        Kind, Query(description="mask: as it was asked for; a format: the mask in it; or what else was asked for")
    ] = "mask",
) -> FileResponse:
    """What was made; a mask in another format is written when it is first asked for, and kept."""
    job = await find_job(service, id)
    if job.state != "done":
        raise Problem(409, f"the job is {job.state}: there is no result", f"see {_url(job)}")
    found = _result(job, format)
    if found is None:
        found = await _rewritten(service, job, cast(OutputFormat, format))
    return FileResponse(
        service.store.files.path(found.digest),
        media_type="application/octet-stream",
        filename=found.name,
        headers={"ETag": f'"{found.digest}"'},
    )


@router.delete("/{id}", status_code=204, responses=problems(404))
async def remove(id: str, service: Here) -> Response:
    """Cancel a job that is queued or running; delete one that ended, with its files."""
    await find_job(service, id)
    jobs = service.store.jobs
    if not await run_in_threadpool(jobs.cancel, id):
        await run_in_threadpool(jobs.delete, id)
    return Response(status_code=204)


def as_json(service: Service, job: Job) -> dict[str, Any]:
    """A job as the API tells of it."""
    what, _, fix = job.message.partition("\n  → ")
    names = {one.digest: one.id for one in service.models}
    return {
        "id": job.id,
        "state": job.state,
        "model": names.get(job.request.model),
        "options": job.request.options,
        "priority": job.priority,
        "progress": round(job.progress, 3),
        "attempts": job.attempts,
        **{name: time_text(getattr(job, name)) for name in ("created", "started", "finished")},
        "message": what,
        "hint": fix or None,
        "warnings": job.report.get("warnings", []),
        "quality": job.report.get("quality"),
        "seconds": job.report.get("seconds"),
        "results": {
            kind: {"name": one.name, "url": f"{_url(job)}/result?format={kind}"}
            for kind, one in job.results.items()
            if kind != LABELS
        },
    }


def _model(service: Service, id: str | None) -> Served:
    known = ", ".join(one.id for one in service.models)
    if id is None and len(service.models) > 1:
        raise Problem(422, "this server has several Models", f"add ?model= with one of {known}")
    found = next((one for one in service.models if id in (None, one.id, one.digest)), None)
    if found is None:
        raise Problem(404, "there is no such Model", f"choose {known}")
    return found


def _result(job: Job, format: str) -> Result | None:
    """What there is; None: it is to be written."""
    mask, asked = job.results["mask"], job.request.options["format"]
    if format in (asked, "same") or suffix_of(mask.name) == _SUFFIXES.get(format):
        return mask
    found = job.results.get(format)
    if found is None and format not in get_args(OutputFormat):
        raise Problem(404, f"the job made no {format}", f"send the image again with {format}=true")
    return found


async def _rewritten(service: Service, job: Job, format: OutputFormat) -> Result:
    model = next((one.model.folder for one in service.models if one.digest == job.request.model), None)
    if model is None:
        raise Problem(409, "the Model of this job is no longer served", "fetch the mask in the format it has")
    mask, kept = job.results["mask"].name, job.results[LABELS].digest
    made = await service.images.do("rewrite", model, input=job.request.input, kept=kept, name=mask, format=format)
    found = Result(**made)
    await run_in_threadpool(service.store.jobs.add_result, job.id, format, found)
    return found


_TOLD: tuple[OutputFormat, ...] = ("nifti", "nrrd", "seg-nrrd", "mha", "png", "tiff", "rtstruct")
_SUFFIXES = {str(format): mask_suffix("", format) for format in _TOLD}
"""Of formats that a mask's suffix tells."""


async def find_job(service: Service, id: str) -> Job:
    """Raises: Problem: there is none."""
    job = await run_in_threadpool(service.store.jobs.get, id)
    if job is None:
        raise Problem(404, "there is no such job")
    return job


async def _finished(service: Service, job: Job, seconds: float) -> Job:
    """The job once it ended, or after so many seconds."""
    end, pause = time.monotonic() + min(seconds, service.limits.wait), FIRST_LOOK
    while job.state in ACTIVE and time.monotonic() < end and not service.stopping():
        await asyncio.sleep(pause)
        pause = min(1.5 * pause, LAST_LOOK)
        job = await find_job(service, job.id)
    return job


async def _changes(service: Service, job: Job) -> AsyncIterator[str]:
    before, said = None, time.monotonic()
    while not service.stopping():
        now = as_json(service, job)
        if now != before:
            yield f"event: job\ndata: {json.dumps(now)}\n\n"
            before, said = now, time.monotonic()
        elif time.monotonic() - said > KEEP_ALIVE:
            yield ":\n\n"
            said = time.monotonic()
        if job.state not in ACTIVE:
            return
        await asyncio.sleep(LAST_LOOK)
        found = await run_in_threadpool(service.store.jobs.get, job.id)
        if found is None:  # deleted
            return
        job = found


def _url(job: Job) -> str:
    return f"{router.prefix}/{job.id}"


def time_text(seconds: float | None) -> str | None:
    """As ISO 8601, UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
