"""What Prometheus may know: requests by route, and what the vault holds."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from scopefs.vault import Vault

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Metrics:
    """The counters of one server."""

    def __init__(self, vault: Vault) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "scopefs_http_requests", "Requests that were answered.", ("method", "route", "status"),
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "scopefs_http_request_seconds", "How long requests took.", ("route",),
            buckets=_BUCKETS_S, registry=self._registry,
        )  # fmt: skip
        self._received = Counter(
            "scopefs_http_received_bytes", "Bytes of bodies that came.", registry=self._registry
        )
        self._sent = Counter(
            "scopefs_http_sent_bytes", "Bytes of bodies that went.", registry=self._registry
        )
        self.streams = Gauge(
            "scopefs_http_event_streams", "Clients that follow events.", registry=self._registry
        )
        self._registry.register(_VaultCollector(vault))

    def note(
        self, method: str, route: str, status: int, seconds: float, received: int, sent: int
    ) -> None:
        """Count one request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if received:
            self._received.inc(received)
        if sent:
            self._sent.inc(sent)

    def render(self) -> bytes:
        """All of it, as text. Reads the index."""
        return generate_latest(self._registry)


class _VaultCollector(Collector):
    """What the vault holds, asked for when it is scraped."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        status = self._vault.status()
        for key, text in (
            ("scopes", "Scopes that have versions."),
            ("versions", "Versions."),
            ("payloadBytes", "Bytes of their payloads."),
            ("events", "The number of the newest event."),
            ("unsettled", "Versions that are not placed yet."),
            ("partial", "Writes that did not finish."),
        ):
            name = "payload_bytes" if key == "payloadBytes" else key
            yield GaugeMetricFamily(f"scopefs_vault_{name}", text, value=status[key])
