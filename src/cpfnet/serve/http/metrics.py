"""``/metrics`` for Prometheus: jobs, workers, requests, and the server's own memory and time."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cpfnet.serve.http.service import Service


class Metrics:
    """Counts requests, and asks the service for the rest when it is read."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        names = ["method", "status"]
        self._requests = Counter("cpfnet_http_requests", "Requests answered.", names, registry=self.registry)
        self.registry.register(_Service(service))

    def count(self, method: str, status: int) -> None:
        """Note a request."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"  # anybody invents others
        self._requests.labels(known, status).inc()

    def text(self) -> bytes:
        """What Prometheus reads."""
        return generate_latest(self.registry)


class _Service(Collector):
    def __init__(self, service: Service):
        self.service = service

    def collect(self) -> Iterable[Metric]:
        names = {one.digest: one.id for one in self.service.models}
        jobs = GaugeMetricFamily("cpfnet_jobs", "Jobs in the store.", labels=["model", "state"])
        for (model, state), number in self.service.store.jobs.count().items():
            if model in names:
                jobs.add_metric([names[model], state], number)
        yield jobs
        yield GaugeMetricFamily("cpfnet_workers", "Worker processes.", len(self.service.pool.processes))
        yield CounterMetricFamily("cpfnet_worker_restarts", "Workers that died.", self.service.pool.restarts)
