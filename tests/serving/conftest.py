"""A run that is served: a small one, on photos of classes that a hostile hand may have named."""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
from PIL import Image
from starlette.testclient import TestClient

import kinfold
from kinfold_serving.app import make_app
from kinfold_serving.served import ServedRun
from kinfold_serving.server import Server, listening_on
from kinfold_serving.service import Service
from runs import indexed_run, write_photos

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos; one class has another name."""
    folder = write_photos(tmp_path_factory.mktemp("data") / "photos")
    (folder / "class 7").rename(folder / EVIL)
    return folder


@pytest.fixture(scope="session")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the photos, with an index of them."""
    return indexed_run(photos, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def service(run: Path) -> Service:
    """The run as it is served; whoever stops it takes `Service` itself."""
    return Service(ServedRun(kinfold.load(run)))


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    """Asks the API without a network."""
    with TestClient(make_app(service), raise_server_exceptions=False) as found:
        yield found


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[tuple[str, int]]:
    """Where a server of the run listens."""
    listening = listening_on("127.0.0.1", 0)
    server = Server(
        make_app(Service(ServedRun(kinfold.load(run))), None, ["127.0.0.1"], seconds=3.0)
    )
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield "127.0.0.1", listening.getsockname()[1]
    server.should_exit = True
    thread.join()
    listening.close()


def png(image: Image.Image | np.ndarray) -> bytes:
    """An image as the bytes of a PNG file."""
    out = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(out, "PNG")
    return out.getvalue()
