"""Metrics for Prometheus: ``install()`` in an ``AppConfig.ready`` is all that it takes.

What happens (sessions opened, created, ended, refusals, the store's answers) is counted in each
process, like all that prometheus_client counts; what is there (live sessions, memory) is asked of
the store when it is scraped, and is the same from every process. No label ever holds a key, an id
or a user.

Where several processes share one scrape through ``PROMETHEUS_MULTIPROC_DIR``, register
``LiveSessions()`` with the registry of the scrape, beside prometheus_client's own
``MultiProcessCollector``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import registry as sessions
from .exceptions import ListingNotSupported, SessionUnavailable
from .observer import observers
from .signals import session_created, session_ended

REASONS = frozenset({"admin", "command", "expiry", "limit", "logout", "owner", "registry"})
"""What ``session_ended`` may say as it is; any other reason is a project's own, and may name what
no label should hold."""

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
"""Seconds: an answer of a Redis nearby takes a tenth of a millisecond."""


class LiveSessions(Collector):
    """What there is, asked of the store at each scrape."""

    def describe(self) -> Iterator[Metric]:
        # Without it, prometheus_client would ask the store as soon as this is registered.
        return iter(())

    def collect(self) -> Iterator[Metric]:
        health = sessions.health()
        yield GaugeMetricFamily(
            "header_sessions_store_up", "Whether the store answers", value=int(health.usable)
        )
        yield GaugeMetricFamily(
            "header_sessions_store_breakers_open",
            "Servers of the store that this process knows not to answer",
            value=len(health.outages),
        )
        try:
            figures = sessions.overview()
        except (ListingNotSupported, SessionUnavailable, ImproperlyConfigured):
            return
        live = GaugeMetricFamily(
            "header_sessions_live", "Live sessions", labels=("transport", "signed_in")
        )
        for kind, count in figures.counts.items():
            live.add_metric([kind.transport, "yes" if kind.signed_in else "no"], count)
        yield live
        alarms = GaugeMetricFamily(
            "header_sessions_alarm", "Whether a limit of the settings is passed", labels=("of",)
        )
        for of in ("count", "bytes"):
            alarms.add_metric([of], float(any(alarm.of == of for alarm in figures.alarms)))
        yield alarms
        if figures.memory is not None:
            yield GaugeMetricFamily(
                "header_sessions_store_memory_bytes",
                "Memory that the servers of the store use",
                value=figures.memory.used,
            )


class Counters:
    """What happens in this process."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self.opens = Counter(
            "header_sessions_opens",
            "Sessions that were asked for by key",
            ("outcome",),
            registry=registry,
        )
        self.created = Counter(
            "header_sessions_created", "Sessions created", ("transport",), registry=registry
        )
        self.ended = Counter(
            "header_sessions_ended",
            "Sessions ended; one that idles out makes no sound",
            ("reason",),
            registry=registry,
        )
        self.commits = Counter(
            "header_sessions_commits",
            "Changes sent to the store",
            ("outcome",),
            registry=registry,
        )
        self.refusals = Counter(
            "header_sessions_refusals",
            "Requests answered with a problem",
            ("kind",),
            registry=registry,
        )
        self.errors = Counter(
            "header_sessions_store_errors",
            "Questions that the store could not answer",
            ("verb",),
            registry=registry,
        )
        self.seconds = Histogram(
            "header_sessions_store_seconds",
            "How long the store took to answer",
            ("verb",),
            buckets=BUCKETS,
            registry=registry,
        )

    def asked(self, verb: str, seconds: float, outcome: str) -> None:
        self.seconds.labels(verb).observe(seconds)
        if outcome in ("unavailable", "failed"):
            self.errors.labels(verb).inc()
        if verb in ("open", "lock") and outcome != "queued":
            self.opens.labels(outcome).inc()
        elif verb == "commit":
            self.commits.labels(outcome).inc()

    def refused(self, kind: str) -> None:
        self.refusals.labels(kind).inc()

    def on_created(self, sender: str, **kwargs: Any) -> None:
        self.created.labels(sender).inc()

    def on_ended(self, reason: str, **kwargs: Any) -> None:
        self.ended.labels(reason if reason in REASONS else "other").inc()


def install(registry: CollectorRegistry = REGISTRY) -> Counters:
    """Count from now on, and let ``registry`` show it. Once a process."""
    counters = Counters(registry)
    registry.register(LiveSessions())
    observers.append(counters)
    session_created.connect(counters.on_created)
    session_ended.connect(counters.on_ended)
    return counters
