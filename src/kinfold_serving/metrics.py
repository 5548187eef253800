"""Counts and times of requests, as Prometheus reads them."""

from __future__ import annotations

import collections
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What happened since the server started; used in its event loop alone.

    Attributes:
        images: how many were decoded.
        refused: how many files were not, by status.
    """

    def __init__(self) -> None:
        self.images = 0
        self.refused: collections.Counter[int] = collections.Counter()
        self.running = 0
        self._requests: collections.Counter[tuple[str, str, int]] = collections.Counter()
        self._buckets: dict[str, list[int]] = {}
        self._seconds: collections.Counter[str] = collections.Counter()

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Take note of a request that was answered."""
        self._requests[method, route, status] += 1
        buckets = self._buckets.setdefault(route, [0] * (len(_BOUNDS) + 1))
        buckets[sum(bound < seconds for bound in _BOUNDS)] += 1
        self._seconds[route] += seconds  # type: ignore[assignment]

    def text(self, gauges: dict[str, tuple[str, float]]) -> str:
        """All of it, with values of the moment: {name: (help, value)}."""
        lines = _head("requests_total", "counter", "Requests answered.")
        for (method, route, status), count in sorted(self._requests.items()):
            of = f'method="{method}",route="{route}",status="{status}"'
            lines.append(f"kinfold_requests_total{{{of}}} {count}")
        lines += _head("request_seconds", "histogram", "Time until a request was answered.")
        for route, buckets in sorted(self._buckets.items()):
            done = 0
            for bound, count in zip((*_BOUNDS, "+Inf"), buckets, strict=True):
                done += count
                of = f'route="{route}",le="{bound}"'
                lines.append(f"kinfold_request_seconds_bucket{{{of}}} {done}")
            lines.append(f'kinfold_request_seconds_sum{{route="{route}"}} {self._seconds[route]}')
            lines.append(f'kinfold_request_seconds_count{{route="{route}"}} {done}')
        lines += _head("images_total", "counter", "Images decoded.")
        lines.append(f"kinfold_images_total {self.images}")
        lines += _head("images_refused_total", "counter", "Files that were not taken.")
        for status, count in sorted(self.refused.items()):
            lines.append(f'kinfold_images_refused_total{{status="{status}"}} {count}')
        for name, (what, value) in {
            "requests_running": ("Requests that are not answered yet.", self.running),
            **gauges,
        }.items():
            lines += _head(name, "gauge", what)
            lines.append(f"kinfold_{name} {value:g}")
        return "\n".join(lines) + "\n"


class Measured:
    """Counts and times the requests of an app."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500
        self.metrics.running += 1

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            self.metrics.running -= 1
            # The route, not the path: strangers could make up any number of paths.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            self.metrics.count(method, route, status, time.perf_counter() - start)


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP kinfold_{name} {what}", f"# TYPE kinfold_{name} {kind}"]
