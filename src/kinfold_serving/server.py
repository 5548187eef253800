"""A run served until it is told to stop."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI

from _kinfold_text import shown
from kinfold_bundle import is_bundle
from kinfold_serving.app import make_app
from kinfold_serving.guard import is_loopback
from kinfold_serving.protocol import Protocol
from kinfold_serving.served import Served, ServedBundle, ServedRun
from kinfold_serving.service import Service

_LONGEST_STOP = 20  # seconds for what is being answered when it is told to stop


def serve(
    folder: str | os.PathLike[str],
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Serve the page and the API of a run or of a bundle, until SIGINT or SIGTERM.

    Args:
        folder: a run that has an index; or a bundle, as `kinfold export --format onnx` writes it,
            which is served without Keras.
        host: the address to listen on. If others than this machine can reach it, a token is needed.
        port: to listen on; 0 for any that is free.
        token: that requests must send; None for none on this machine, and a new one elsewhere.
        tell: hears where it is served.

    Raises:
        FileNotFoundError: there is no run and no bundle, or it has no index.
        ValueError: the index is damaged or of another model, or the address is not valid.
        OSError: the port is taken.
    """
    if not 0 <= port < 65536:
        raise ValueError(f"A port is a number from 0 to 65535. Received: {port}.")
    if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
        raise ValueError("A token must be of visible ASCII characters.")
    local = is_loopback(host)
    if token is None and not local:
        token = secrets.token_urlsafe(24)
    path = Path(folder)
    served = ServedBundle(path) if is_bundle(path) else _run(path)
    with contextlib.closing(listening_on(host, port)) as listening:
        service = Service(served)
        service.searcher.warm_up()
        port = listening.getsockname()[1]
        names = {"localhost", "127.0.0.1", "::1", host} if token is None else None
        app = make_app(service, token, names)
        snapshot = service.snapshot
        shown_host = f"[{host}]" if ":" in host else host
        secret = "" if token is None else f"?token={quote(token, safe='')}"
        lines = [
            f"{shown(path)} with {len(snapshot.index):,} items is served at "
            f"http://{shown_host}:{port}/{secret}",
            f"The API is described at http://{shown_host}:{port}/docs. Ctrl-C stops the server.",
        ]
        if snapshot.why:
            lines.append(f"It gives no verdicts: {snapshot.why}")
        if host in ("0.0.0.0", "::"):
            lines.append("From another machine, put the name of this one in the place of the host.")
        if not local:
            lines.append("What is sent is not encrypted: put a proxy with TLS before it.")
        tell("\n".join(lines))
        Server(app).run([listening])
    tell("Stopped.")


def _run(path: Path) -> Served:
    from kinfold.trained import load  # which imports Keras

    return ServedRun(load(path))


class Server(uvicorn.Server):
    """Serves an app; it ends without raising again the signal that has stopped it."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                loop="asyncio",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=20,
                timeout_graceful_shutdown=_LONGEST_STOP,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self.handle_exit(number, frame)

        before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def listening_on(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ValueError: there is no such host.
        OSError: the port is taken, or may not be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ValueError(f"There is no host {host!r} to listen on: {error.strerror}.") from None
    try:
        listening = socket.create_server(address[:2], family=family, backlog=2048)
        # asyncio sets it only on sockets that name their protocol; without it answers wait 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise OSError(
            f"Could not listen on port {port} of {host}: {error.strerror}. Name another --port."
        ) from None
