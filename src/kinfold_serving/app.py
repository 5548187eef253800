"""The ASGI app: the page, the API, and the middleware around both."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from kinfold_serving.api import LARGEST_REQUEST, router
from kinfold_serving.decoding import BadImageError
from kinfold_serving.guard import Guard
from kinfold_serving.limits import SECONDS, Limits
from kinfold_serving.metrics import Measured
from kinfold_serving.searcher import BusyError
from kinfold_serving.service import Service

PAGE = Path(__file__).parent / "page"

_ABOUT = """Find the nearest known things for something new, and decide whether it is one of them.

Where `kinfold serve` was given or has made a token, send it: `Authorization: Bearer TOKEN`.
Errors are a JSON object with one sentence, `detail`."""


def make_app(
    service: Service,
    token: str | None = None,
    hosts: Iterable[str] | None = None,
    seconds: float = SECONDS,
) -> FastAPI:
    """Build the app that serves a run.

    Args:
        service: the run.
        token: that every request but health needs; None for none.
        hosts: names that it may be called by; None for any.
        seconds: in which a request must have arrived.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.stop()

    app = FastAPI(
        title="Kinfold",
        version="1",
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(router(service))
    _add_pages(app)
    app.add_exception_handler(BadImageError, _bad_image)
    app.add_exception_handler(BusyError, _busy)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ValueError, _wrong)
    app.add_middleware(Limits, largest=LARGEST_REQUEST, seconds=seconds)
    app.add_middleware(Guard, token=token, hosts=hosts)
    app.add_middleware(Measured, metrics=service.metrics)
    return app


def _add_pages(app: FastAPI) -> None:
    libraries = {
        name: _of_package(package, f"{folder}/{name}")
        for package, folder, name in (
            ("plotly", "package_data", "plotly.min.js"),
            ("fastapi_offline", "static", "swagger-ui-bundle.js"),
            ("fastapi_offline", "static", "swagger-ui.css"),
        )
    }

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(PAGE / "docs.html", headers={"Cache-Control": "no-cache"})

    @app.get("/libraries/{name}", include_in_schema=False)
    async def library(name: str) -> Response:
        found = libraries.get(name)
        if found is None:
            return JSONResponse({"detail": "Not Found"}, 404)
        return FileResponse(found, headers={"Cache-Control": "no-cache"})

    app.mount("/static", StaticFiles(directory=PAGE))


def _of_package(package: str, file: str) -> Path:
    """A file that an installed package brings along; the package is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(f"The page needs {package}: pip install 'kinfold[serve]'")
    return Path(spec.origin).parent / file


async def _bad_image(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadImageError)
    return JSONResponse({"detail": str(error)}, error.status)


async def _busy(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})


async def _wrong(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 400)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(one) for one in first["loc"][1:]) or "the body"
    return JSONResponse({"detail": f"{where}: {first['msg']}."}, 422)
