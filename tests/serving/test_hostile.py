"""What a hostile hand may send: bombs, no images, paths, names, and bytes that trickle."""

import asyncio
import io
import socket
import struct
import time
import urllib.parse
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import _kinfold_upload
import kinfold
from kinfold import trained
from kinfold_serving.app import make_app
from kinfold_serving.decoding import BadImageError, Decoding
from kinfold_serving.limits import Limits
from kinfold_serving.protocol import Protocol
from kinfold_serving.served import ServedRun
from kinfold_serving.service import Service

from .conftest import EVIL, png

API = "/api/v1"


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(out, "JPEG")
    return out.getvalue()


def png_of(width: int, height: int, data: bytes = b"\0" * 100, colours: int = 2) -> bytes:
    """A PNG file whose header says what it likes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    packed = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + packed


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.png", b"\0" * 10_000_000)
    return out.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
GHOST = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n"  # for Ghostscript
HOSTILE = {
    "a bomb": (png_of(50_000, 50_000), 413, "has more than 50 million pixels."),
    "a smaller bomb": (png_of(10_000, 5_001), 413, "has more than 50 million pixels."),
    "no end": (jpeg()[:900], 400, "is damaged, or its end is missing."),
    "no pixels": (png_of(64, 64), 400, "is damaged, or its end is missing."),
    "no size": (png_of(0, 0), 415, "is no image"),
    "text": (b"hello" * 100, 415, "is no image of a format that is taken: JPEG, PNG"),
    "nothing": (b"", 415, "is no image of a format that is taken: JPEG, PNG"),
    "svg": (SVG, 415, "is no image of a format that is taken: JPEG, PNG"),
    "zip": (archive(), 415, "is no image of a format that is taken: JPEG, PNG"),
    "postscript": (GHOST, 415, "is no image of a format that is taken: JPEG, PNG"),
    "half a header": (png_of(64, 64)[:20], 400, "is damaged: its header cannot be read."),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_upload_is_refused_in_a_sentence(
    kind: str, client: TestClient, photos: Path
) -> None:
    file, status, said = HOSTILE[kind]
    answer = client.post(f"{API}/search", files=[("images", ("evil.png", file, "image/png"))])
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert detail.startswith(f"evil.png {said}"), detail
    assert detail.endswith(".")
    assert "\n" not in detail
    assert "/" not in detail  # no path
    good = {"images": ("0.png", (photos / "class 0" / "0.png").read_bytes())}
    assert client.post(f"{API}/search", files=good).status_code == 200


def test_how_much_may_be_sent(client: TestClient, photos: Path) -> None:
    large = png_of(64, 64) + b"\0" * (20 << 20)
    answer = client.post(f"{API}/search", files={"images": ("large.png", large)})
    assert (answer.status_code, answer.json()["detail"]) == (
        413,
        "large.png is larger than 20 MiB.",
    )
    one = ("images", ("0.png", (photos / "class 0" / "0.png").read_bytes()))
    answer = client.post(f"{API}/search", files=33 * [one])
    assert (answer.status_code, answer.json()["detail"]) == (
        413,
        "A request may have 32 images at most.",
    )
    assert len(client.post(f"{API}/search", files=32 * [one]).json()["results"]) == 32
    huge = b"\0" * (65 << 20)
    answer = client.post(f"{API}/search/vectors", content=huge)
    assert answer.status_code == 413
    chunks = (huge[:1_000_000] for _ in range(70))  # whose length is not announced
    answer = client.post(f"{API}/search/vectors", content=chunks)
    assert answer.status_code == 413
    assert answer.json()["detail"] == "A request may have 64 MiB at most."
    assert client.post(f"{API}/search", data={"images": "text"}).status_code == 422
    assert client.post(f"{API}/search", content=b"x").status_code == 422


def test_the_largest_images_that_are_taken(client: TestClient) -> None:
    wide = png_of(10_000, 5_000, b"\0" * 5_000 * 10_001, colours=0)
    assert len(wide) < 100_000
    answer = client.post(f"{API}/search", files={"images": ("wide.png", wide)})
    assert answer.status_code == 200, answer.text


def test_what_takes_too_long_to_decode_is_ended(photos: Path) -> None:
    async def asked() -> None:
        decoding = Decoding(count=1, seconds=0.001)
        good = (photos / "class 0" / "0.png").read_bytes()

        async def read() -> bytes:
            return good

        try:
            with pytest.raises(BadImageError, match=r"takes longer than 0.001 seconds"):
                await decoding.pixels(read, (16, 16, 3))
            decoding.seconds = 20.0
            pixels = await decoding.pixels(read, (16, 16, 3))  # by another process
            with Image.open(io.BytesIO(good)) as image:
                np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
            process = decoding._all[0]._process
            assert process is not None
            process.kill()  # as where memory runs out
            await process.wait()
            assert (await decoding.pixels(read, (16, 16, 3))).shape == (16, 16, 3)
        finally:
            await decoding.stop()

    asyncio.run(asked())


def test_the_decoder_sees_what_the_run_sees(run: Path, photos: Path) -> None:
    used = kinfold.load(run)
    path = photos / "class 4" / "4.png"
    (expected,) = used.embedder.pixels_of([path])
    found = _kinfold_upload.decode(path.read_bytes(), *used.embedder.shape)
    np.testing.assert_array_equal(np.frombuffer(found, np.uint8).reshape(16, 16, 3), expected)


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd",
        "/static/....//app.py", "/static/..%5capp.py", "/libraries/..%2f..%2fapp.py",
        "/libraries/%2e%2e", f"{API}/items/image?id=../../../../etc/passwd",
        f"{API}/items/image?id=/etc/passwd", f"{API}/items/image?id=class%200/../class%200/0.png",
        f"{API}/items/image?id=file:///etc/passwd", f"{API}/items/image?id=%00",
        f"{API}/items?id=../index/index.json", f"{API}/classes/items?label=../..",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_index(
    path: str, client: TestClient, address: tuple[str, int]
) -> None:
    assert client.get(path).status_code == 404
    with socket.create_connection(address) as sent:  # as it stands: clients tidy paths up
        sent.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: sent.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404"), answer
    assert b"root:" not in answer
    assert b"def make_app" not in answer


def test_a_file_that_is_no_image_any_more_is_not_read_out(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    data = tmp_path / "data" / "one"
    data.mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png", "d.png"):
        (data / name).write_bytes((photos / "class 0" / "0.png").read_bytes())
    trained.index(copy, str(data.parent))
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    (data / "a.png").write_text("a secret")
    (data / "b.png").unlink()
    (data / "b.png").symlink_to(secret)
    (data / "c.png").unlink()
    with TestClient(make_app(Service(ServedRun(kinfold.load(copy))))) as client:
        for name, status in (("a", 415), ("b", 415), ("c", 404), ("d", 200)):
            answer = client.get(f"{API}/items/image", params={"id": f"one/{name}.png"})
            assert answer.status_code == status, answer.text
            assert b"secret" not in answer.content


def test_names_are_text(client: TestClient, photos: Path) -> None:
    file = (photos / EVIL / "0.png").read_bytes()
    answer = client.post(f"{API}/search", files={"images": (f"{EVIL}.png", file)})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["results"][0]["label"] == EVIL
    assert answer.json()["results"][0]["name"] == f"{EVIL}.png"
    picture = answer.json()["results"][0]["neighbours"][0]["image"]
    assert "<" not in picture
    refused = client.post(f"{API}/search", files={"images": ("\x1b[31m" + "x" * 300, b"no")})
    assert len(refused.json()["detail"]) < 300
    assert "\x1b" not in refused.json()["detail"]


def test_a_slow_client_holds_up_no_one(address: tuple[str, int], photos: Path) -> None:
    import http.client

    body = png(np.zeros((16, 16, 3), np.uint8))
    slow = []
    for _ in range(50):
        one = socket.create_connection(address)
        one.sendall(
            b"POST /api/v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        slow.append(one)
    times = []
    for k in range(10):
        start = time.monotonic()
        asked = http.client.HTTPConnection(*address, timeout=20)
        form = b"--x\r\nContent-Disposition: form-data; name=images; filename=a.png\r\n\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        asked.request("POST", "/api/v1/search", form + body + b"\r\n--x--\r\n", kind)
        assert asked.getresponse().status == 200
        asked.close()
        times.append(time.monotonic() - start)
        slow[k].sendall(b"x")
    assert np.median(times) < 2.5  # without waiting for them, who are given three seconds
    for one in slow:
        one.settimeout(10)
        answer = one.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408"), answer
        one.close()


def test_headers_that_trickle_are_not_waited_for(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Protocol, "seconds", 0.3)
    with socket.create_connection(address) as sent:
        sent.settimeout(10)
        sent.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ")
        for _ in range(5):
            time.sleep(0.05)
            sent.sendall(b"a")
        assert sent.recv(100) == b""
    with socket.create_connection(address) as sent:  # after a request that was whole, too
        sent.settimeout(10)
        sent.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert sent.recv(4096).startswith(b"HTTP/1.1 200")
        sent.sendall(b"GET / HTT")
        while sent.recv(4096):
            pass


def test_a_connection_that_is_lost_is_no_error(client: TestClient) -> None:
    async def asked() -> list[str]:
        sent: list[str] = []

        async def app(scope: object, receive: object, send: object) -> None:
            message = await receive()  # type: ignore[operator]
            sent.append(message["type"])

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            raise AssertionError("there is no one to send to")

        scope = {"type": "http", "headers": []}
        await Limits(app, 100)(scope, receive, send)  # type: ignore[arg-type]
        return sent

    assert asyncio.run(asked()) == ["http.disconnect"]


def test_ids_in_addresses_are_quoted(client: TestClient) -> None:
    item = f"{EVIL}/1.png"
    found = client.get(f"{API}/items", params={"id": item}).json()
    assert found["image"].endswith(urllib.parse.quote(item, safe=""))
