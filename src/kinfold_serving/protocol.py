"""HTTP of uvicorn that closes connections on which no request arrives."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 30.0  # in which the headers of a request must have arrived


class Protocol(H11Protocol):
    """Closes a connection that sends headers too slowly: uvicorn would wait forever."""

    seconds = SECONDS
    _look: asyncio.TimerHandle | None = None
    _last: Any = None  # the request that was answered last when it was looked at before

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look = self.loop.call_later(self.seconds, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is self._last:  # none has come since
            self.transport.close()
            return
        self._last = self.cycle if idle else self
        self._look = self.loop.call_later(self.seconds, self._check)
