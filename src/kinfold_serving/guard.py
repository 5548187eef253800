"""Which requests are let in, and the security headers of each answer."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "kinfold_token"
OPEN = ("/api/v1/health",)  # needs no token, so that a probe can ask

# Only what the server itself sends runs or is shown; plotly and Swagger write styles.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Asks for the token, refuses requests that another site's page sends, adds headers.

    Args:
        app: what is guarded.
        token: what requests must send; None for none.
        hosts: names that this server may be called by; None for any. Without a token they keep
            out pages whose own name leads to this machine (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Iterable[str] | None) -> None:
        self.app, self.token = app, token
        self.hosts = None if hosts is None else {one.lower() for one in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                # A browser keeps these, and asks whether they are new.
                kept = scope["path"].startswith("/static/")
                headers.setdefault("Cache-Control", "no-cache" if kept else "no-store")
            await send(message)

        answer = self._refusal(scope)
        await (answer or self.app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that is not let in."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            return _problem(421, "This server is not called by this name.")
        origin = headers.get("origin")
        changes = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if changes and origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return _problem(403, "Requests of another site's page are not taken.")
        if self.token is None or scope["path"] in OPEN:
            return None
        asked = scope["query_string"].decode("latin-1")
        given = dict(parse_qsl(asked)).get("token")
        if given is not None and scope["path"] == "/" and self._is_token(given):
            rest = [(name, value) for name, value in parse_qsl(asked) if name != "token"]
            answer = RedirectResponse("/" + (f"?{urlencode(rest)}" if rest else ""), 303)
            answer.set_cookie(
                COOKIE, given, httponly=True, samesite="strict", secure=scope["scheme"] == "https"
            )
            return answer
        if self._is_token(_bearer(headers)) or self._is_token(_cookie(headers)):
            return None
        if scope["path"].startswith("/api/"):
            refused = _problem(401, "A token is needed: Authorization: Bearer TOKEN.")
            refused.headers["WWW-Authenticate"] = "Bearer"
            return refused
        return PlainTextResponse(
            "A token is needed. Open the address that kinfold serve has printed: it ends in "
            "/?token=...\n",
            401,
        )

    def _is_token(self, given: str | None) -> bool:
        assert self.token is not None
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """The host of a Host header, without its port."""
    if host.startswith("["):
        return host[1 : host.find("]")].lower()
    return host.partition(":")[0].lower()


def _bearer(headers: Headers) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _cookie(headers: Headers) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


def _problem(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)
