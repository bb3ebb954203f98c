"""Prometheus metrics, in base units; docs/metrics.md lists them. No label ever names a client."""

import platform
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Histogram(
            "thex_rpc_duration_seconds",
            "Duration of calls, streams included, until the last message",
            ("method", "code"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "thex_stage_duration_seconds",
            "Duration of the stages of a query: queue, load, compute, write",
            ("stage",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.refused = self._counter("thex_refused_total", "Calls refused, by reason", "reason")
        self.received = self._counter("thex_received_bytes_total", "Payload bytes received", "method")
        self.sent = self._counter("thex_sent_bytes_total", "Payload bytes sent", "method")
        self.removed = self._counter("thex_key_sets_removed_total", "Key sets that went, by reason", "reason")
        self.restarts = self._counter("thex_worker_restarts_total", "Workers started anew, by what ended them", "cause")
        self.quarantined = self._counter("thex_quarantined_total", "Inputs that ended a worker and are not tried again")
        self.active = self._gauge("thex_calls_active", "Calls going on", "method")
        self.queue = self._gauge("thex_queue_length", "Jobs that wait for a worker")
        self.computing = self._gauge("thex_jobs_computing", "Jobs that workers compute")
        self.workers = self._gauge("thex_workers_ready", "Workers that are up")
        self.key_sets = self._gauge("thex_key_sets", "Key sets in the store")
        self.key_bytes = self._gauge("thex_key_store_bytes", "Bytes that the store's key sets take once whole")
        self.key_budget = self._gauge("thex_key_store_budget_bytes", "Budget of the store")
        self.free = self._gauge("thex_disk_free_bytes", "Free space of the store's disk")
        self.serving = self._gauge("thex_ready", "1 while the server takes queries")
        build = self._gauge("thex_build_info", "1, with what this server is", "version", "python", "program")
        self._build = build
        ProcessCollector(registry=self.registry)

    def describe(self, program_digest: str) -> None:
        """Say what is served."""
        try:
            ours = version("thex")
        except PackageNotFoundError:
            ours = "unknown"
        self._build.labels(ours, platform.python_version(), program_digest[:16]).set(1)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)
