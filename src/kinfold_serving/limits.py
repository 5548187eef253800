"""How large a request may be, and how long it may take to arrive."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = 60.0  # in which a request must have arrived
_DRAINED = 5.0  # seconds in which what is too large is read and thrown away


class Limits:
    """Ends requests that are too large or too slow.

    Args:
        app: what is guarded.
        largest: bytes of a body.
        seconds: in which a body must have arrived.
    """

    def __init__(self, app: ASGIApp, largest: int, seconds: float = SECONDS) -> None:
        self.app, self.largest, self.seconds = app, largest, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        said = Headers(scope=scope).get("content-length", "0")
        announced = int(said) if said.isdecimal() and len(said) < 19 else 0
        deadline = asyncio.get_running_loop().time() + self.seconds
        got, whole = 0, False

        async def limited() -> Message:
            nonlocal got, whole
            if whole:  # only the end of the connection is still to come
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, f"The request did not arrive within {self.seconds:g} seconds."
                ) from None
            got += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if max(got, announced) > self.largest:
                if not whole:
                    await _drain(receive, 4 * self.largest)
                    whole = True
                raise HTTPException(
                    413, f"A request may have {self.largest / (1 << 20):g} MiB at most."
                )
            return message

        await self.app(scope, limited, send)


async def _drain(receive: Receive, most: int) -> None:
    """Read on for a while: a client that is still sending would not read the answer."""
    try:
        async with asyncio.timeout(_DRAINED):
            more = True
            while more and most > 0:
                message = await receive()
                most -= len(message.get("body", b""))
                more = message.get("more_body", False)
    except TimeoutError:
        return
