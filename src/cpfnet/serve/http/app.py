"""The routes of a server, and who may ask for them."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.telemetry import TelemetryConfig
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

import cpfnet
from cpfnet.serve.http import cases, jobs
from cpfnet.serve.http.gate import Gate
from cpfnet.serve.http.metrics import Metrics
from cpfnet.serve.http.page import page
from cpfnet.serve.http.problems import answer_problems, problem
from cpfnet.serve.http.service import Service


def make_app(service: Service, *, port: int, token: str, require_token: bool) -> ASGIApp:
    """An ASGI application.

    Args:
        service: what it is the door of.
        port, token, require_token: see `Gate`.
    """
    # Its pages for /docs load scripts from elsewhere; its telemetry would hand requests to whatever is set up.
    quiet = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)
    app = FastAPI(
        title="cpfnet",
        version=cpfnet.__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        telemetry=quiet,
    )
    app.state.service = service
    metrics = Metrics(service)
    answer_problems(app)
    app.include_router(jobs.router)
    app.include_router(cases.router)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def home() -> HTMLResponse:
        return HTMLResponse(page(service.models, service.address))

    @app.get("/api/v1/models", tags=["models"])
    async def models() -> JSONResponse:
        """The Models with their labels, what each one accepts, and its card."""
        return JSONResponse([one.as_json() for one in service.models])

    @app.get("/health/live", tags=["health"])
    async def live() -> JSONResponse:
        """The server answers."""
        return JSONResponse({"status": "live"})

    @app.get("/health/ready", tags=["health"])
    async def ready() -> JSONResponse:
        """The job store answers, and every Model has a worker that waits or works; else 503."""
        await run_in_threadpool(service.store.jobs.count)
        if service.pool.ready:
            return JSONResponse({"status": "ready"})
        return problem(503, "a worker is starting", "ask again in a few seconds")

    @app.get("/metrics", tags=["health"])
    async def measured() -> Response:
        """For Prometheus."""
        return Response(await run_in_threadpool(metrics.text), media_type="text/plain; version=0.0.4")

    return Gate(app, port=port, token=token, require_token=require_token, count=metrics.count)
