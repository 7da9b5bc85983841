"""``/api/v1/cases``: images that are kept to be labelled, and the versions of their labels."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from cpfnet.image import Assessment
from cpfnet.inference.quality.review_list import urgency
from cpfnet.serve.cases.case import Case, Label, LabelState, case_id, split_of
from cpfnet.serve.files import read_manifest
from cpfnet.serve.http.jobs import Here, find_job, problems, time_text
from cpfnet.serve.http.problems import Problem
from cpfnet.serve.http.service import Service
from cpfnet.serve.http.upload import receive
from cpfnet.serve.jobs.job import LABELS

router = APIRouter(prefix="/api/v1/cases", tags=["cases"])

_LABEL = {
    "requestBody": {
        "required": True,
        "description": "the label's file, in any format that is read",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("", status_code=201, responses=problems(404, 409))
async def keep(
    service: Here,
    job: Annotated[str, Query(description="id of a job that is done")],
    patient: Annotated[
        str | None,
        Query(
            pattern=r"^[\w.-]{1,64}$",
            description="pseudonym; default: of DICOM made from its UIDs, else the case's own",
        ),
    ] = None,
) -> JSONResponse:
    """Keep the image of a job to be labelled, also once the job is deleted; a fifth of the patients become test."""
    service.labelling.check()
    found = await find_job(service, job)
    model = next((one.model.folder for one in service.models if one.digest == found.request.model), None)
    if found.state != "done" or model is None:
        raise Problem(409, f"the job is {found.state}, or its Model is no longer served", "send the image again")
    seen = await service.images.do("describe", model, input=found.request.input)
    id = case_id(found.request.input)
    whose = patient or seen["patient"] or id
    quality = Assessment(**found.report["quality"]) if found.report.get("quality") else Assessment(None)
    case = Case(
        id=id,
        input=found.request.input,
        images=tuple(seen["images"]),
        patient=whose,
        split=split_of(whose),
        model=found.request.model,
        kept=found.results[LABELS].digest,
        quality=quality,
        created=0.0,
    )
    try:
        made, new = await run_in_threadpool(service.labelling.keep, case)
    except FileNotFoundError:
        raise Problem(409, "the job was deleted meanwhile", "send the image again") from None
    return _answer(service, made, 201 if new else 200)


@router.get("")
async def page(
    service: Here,
    labelled: Annotated[bool | None, Query(description="whether a label counts")] = None,
    split: Literal["test", "train"] | None = None,
    sort: Annotated[
        Literal["urgency", "oldest", "newest"], Query(description="urgency: least sure first, labelled ones last")
    ] = "urgency",
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> JSONResponse:
    """The cases, a page at a time."""
    found = [
        case
        for case in await run_in_threadpool(service.store.cases.each)
        if labelled in (None, bool(case.counting)) and split in (None, case.split or "train")
    ]
    if sort == "urgency":
        found.sort(key=lambda case: (bool(case.counting), urgency(case.quality)))
    elif sort == "newest":
        found.reverse()
    shown = [_as_json(service, case) for case in found[offset : offset + limit]]
    return JSONResponse({"total": len(found), "cases": shown})


@router.get("/{id}", responses=problems(404))
async def show(id: str, service: Here) -> JSONResponse:
    """A case with all versions of its label; its ETag is the version of the newest one."""
    return _answer(service, await _find(service, id))


@router.put("/{id}/labels", status_code=201, openapi_extra=_LABEL, responses=problems(404, 409, 412, 413, 422, 428))
async def label(
    request: Request,
    id: str,
    service: Here,
    name: Annotated[str, Query(description="file name, with the suffix")],
    state: LabelState = "accepted",
    origin: Annotated[
        Literal["model", "nothing"],
        Query(description="what a first version was made from: a Model's mask is no evidence of how good the Model is"),
    ] = "model",
    if_match: Annotated[str | None, Header(description="the version that it was made from, as the ETag says")] = None,
) -> JSONResponse:
    """Add a version of the label. Nothing is overwritten: who edits an older version than the newest gets 412."""
    service.labelling.check()
    case = await _find(service, id)
    if if_match is None:
        raise Problem(
            428, "the version that this was made from is missing", 'add If-Match: "0", or the ETag of the case'
        )
    if (version := re.fullmatch(r'"(\d{1,9})"', if_match)) is None:
        raise Problem(412, "If-Match is no version", "send the ETag of the case as it is")
    base = int(version[1])
    model = next((one for one in service.models if one.digest == case.model), service.models[0]).model.folder
    assert model is not None  # served from a folder
    files = service.store.files
    listed = await run_in_threadpool(
        lambda digest: read_manifest(files.path(digest)), await receive(request, name, files, service.limits)
    )
    if len(listed) != 1:
        raise Problem(422, f"{len(listed)} files were sent", "send the label as one file")
    ((safe, digest),) = listed.items()
    seen = await service.images.do("check_label", model, input=case.input, kept=case.kept, label=digest, name=safe)
    if base == 0:
        source = case.model if origin == "model" or seen["untouched"] else None
    else:
        source = next((one.model for one in case.labels if one.version == base), None)
    given = Label(0, "", state, seen["untouched"], source, safe, digest, 0.0)
    await run_in_threadpool(service.labelling.label, case, base, given)
    return _answer(service, await _find(service, id), 201)


@router.get("/{id}/labels/{version}", response_class=FileResponse, responses=problems(404))
async def file(id: str, version: int, service: Here) -> FileResponse:
    """The file of a version."""
    case = await _find(service, id)
    found = next((one for one in case.labels if one.version == version), None)
    if found is None:
        raise Problem(404, "there is no such version")
    path = service.store.files.path(found.digest)
    return FileResponse(path, media_type="application/octet-stream", filename=found.name)


async def _find(service: Service, id: str) -> Case:
    case = await run_in_threadpool(service.store.cases.get, id)
    if case is None:
        raise Problem(404, "there is no such case")
    return case


def _answer(service: Service, case: Case, status: int = 200) -> JSONResponse:
    headers = {"ETag": f'"{case.version}"', "Location": f"{router.prefix}/{case.id}"}
    return JSONResponse(_as_json(service, case), status, headers)


def _as_json(service: Service, case: Case) -> dict[str, Any]:
    names, counting = {one.digest: one.id for one in service.models}, case.counting.values()
    return {
        "id": case.id,
        "patient": case.patient,
        "split": case.split or "train",
        "created": time_text(case.created),
        "model": names.get(case.model, case.model),
        "quality": {"confidence": case.quality.confidence, "dice": case.quality.dice, "look": case.quality.look},
        "version": case.version,
        "labels": [
            {
                "version": one.version,
                "author": one.author,
                "state": one.state,
                "counts": one in counting,
                "untouched": one.untouched,
                "made_from": None if one.model is None else names.get(one.model, one.model),
                "name": one.name,
                "created": time_text(one.created),
                "url": f"{router.prefix}/{case.id}/labels/{one.version}",
            }
            for one in case.labels
        ],
    }
