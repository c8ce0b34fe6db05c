"""What this server counts about itself, for Prometheus: its requests, and where predictions came from.

One registry per application, as tests make many. What the record knows is read at each scrape (`metrics_record.py`).
"""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

# Up to 0.1 s is what an expert waits for; Label Studio gives up after 1 s (webhook), 3 s (setup), 100 s (predict).
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0, 30.0, 100.0)

Source = Literal["stored", "detected", "left", "refused"]


class Metrics:
    """Counters of one server. Thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        for of_process in (ProcessCollector, PlatformCollector, GCCollector):
            of_process(registry=self.registry)
        self._requests = Counter(
            "cellloop_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "cellloop_request_seconds",
            "Time from a request's first byte to the end of its answer.",
            ("route",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._predictions = Counter(
            "cellloop_predicted_tasks",
            "Tasks of /predict: answered from the record (stored), detected at once, left to the worker, or refused.",
            ("source",),
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "cellloop_requests_in_flight", "Requests being answered right now.", registry=self.registry
        )
        for source in Source.__args__:  # type: ignore[attr-defined]  # all of them are there from the beginning
            self._predictions.labels(source)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered. route: its pattern, so that there are few."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def predicted(self, source: Source, tasks: int) -> None:
        """So many tasks of a /predict were answered in this way."""
        self._predictions.labels(source).inc(tasks)
