"""Many at once: none is lost, memory is steady, and an index may change meanwhile."""

import asyncio
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import httpx2 as httpx
import keras
import numpy as np
import pytest

import kinfold
from kinfold import trained
from kinfold_serving.app import make_app
from kinfold_serving.searcher import BusyError, Searcher
from kinfold_serving.served import ServedRun
from kinfold_serving.server import Server, listening_on
from kinfold_serving.service import Service
from kinfold_serving.snapshot import Snapshot

API = "/api/v1"


def memory() -> float:
    """MiB that this process holds."""
    if Path("/proc/self/statm").exists():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


async def search(client: httpx.AsyncClient, path: Path) -> Any:
    answer = await client.post(f"{API}/search", files={"images": (path.name, path.read_bytes())})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_two_hundred_at_once_find_what_each_finds_alone(
    address: tuple[str, int], photos: Path
) -> None:
    paths = sorted(photos.rglob("*.png"))
    paths = [paths[k % len(paths)] for k in range(200)]

    async def asked() -> tuple[list[Any], list[Any], list[float]]:
        url = f"http://{address[0]}:{address[1]}"
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            alone = [await search(client, path) for path in paths[:50]]
            held = []
            for _ in range(12):
                together = await asyncio.gather(*(search(client, path) for path in paths))
                assert len(together) == 200
                held.append(memory())
            return alone, together, held

    alone, together, held = asyncio.run(asked())
    for one, path in zip(together, paths, strict=True):
        found = one["results"][0]["neighbours"][0]
        assert found["id"] == f"{path.parent.name}/{path.name}"
        assert found["distance"] == pytest.approx(0, abs=1e-5)
    for one, other in zip(alone, together, strict=False):
        (first,), (second,) = one["results"], other["results"]
        assert [near["id"] for near in first["neighbours"]] == [
            near["id"] for near in second["neighbours"]
        ]
        np.testing.assert_allclose(
            [near["distance"] for near in first["neighbours"]],
            [near["distance"] for near in second["neighbours"]],
            atol=1e-5,
        )
    # Buffers of threads grow for some 1,400 searches, on JAX by 45 MiB, and then no more.
    assert held[-1] - held[7] < 20, held  # 800 searches later


def test_a_reload_loses_no_request(run: Path, photos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    few = tmp_path / "few"
    shutil.copytree(photos / "class 0", few / "class 0")
    shutil.copytree(photos / "class 1", few / "class 1")
    path = photos / "class 0" / "3.png"
    listening = listening_on("127.0.0.1", 0)
    server = Server(make_app(Service(ServedRun(kinfold.load(copy)))))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()

    async def asked() -> list[Any]:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        found: list[Any] = []
        over = asyncio.Event()

        async def search_on(client: httpx.AsyncClient) -> None:
            while not over.is_set():
                found.append(await search(client, path))

        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            found.append(await search(client, path))  # starts what decodes
            searches = [asyncio.create_task(search_on(client)) for _ in range(8)]
            for number in range(1, 4):
                data = few if number % 2 else photos
                await asyncio.to_thread(trained.index, copy, str(data))
                answer = await client.post(f"{API}/reload")
                assert answer.status_code == 200, answer.text
                items = 12 if number % 2 else 144
                assert answer.json() == {"status": "ok", "index": number, "items": items}
                later = await search(client, path)
                assert later["index"] == number
            over.set()
            await asyncio.gather(*searches)
        return found

    try:
        found = asyncio.run(asked())
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
    assert {one["index"] for one in found} == {0, 1, 2, 3}
    for one in found:
        near = one["results"][0]["neighbours"]
        assert near[0]["id"] == "class 0/3.png"
        few_labels = {"class 0", "class 1"}
        assert not one["index"] % 2 or {item["label"] for item in near} <= few_labels


def test_one_search_that_fails_spoils_no_other(run: Path) -> None:
    used = ServedRun(kinfold.load(run))

    async def asked() -> list[Any]:
        searcher = Searcher(used, Snapshot.take(used, 0))
        good = used.run.index.vectors(np.arange(3))
        bad = np.zeros((1, 5), np.float32)
        try:
            with pytest.raises(BusyError):
                await searcher.search(np.zeros((5000, 8), np.float32), 1, True)
            return await asyncio.gather(
                *(searcher.search(one, 2, True) for one in (good, bad, good)),
                return_exceptions=True,
            )
        finally:
            searcher.stop()
            assert searcher.waiting == 0

    first, second, third = asyncio.run(asked())
    assert isinstance(second, ValueError)
    for _, found in (first, third):
        assert found.ids[:, 0].tolist() == used.run.index.ids[:3].tolist()


def started(*arguments: object, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """The command in a process of its own, and the address that it has printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kinfold_cli", "serve", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend(), **environment},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert " is served at http://" in line, line + (process.stderr.read() if process.stderr else "")
    return process, line.split(" is served at ")[1].strip()


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_the_command_stops_cleanly(run: Path, photos: Path, signal_: signal.Signals) -> None:
    process, url = started(run, "--port", 0)
    try:
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}api/v1/health") as answer:
            assert answer.status == 200
        files = {"images": ("0.png", (photos / "class 0" / "0.png").read_bytes())}
        assert httpx.post(f"{url}api/v1/search", files=files, timeout=30).status_code == 200
        host, _, port = url.removeprefix("http://").strip("/").partition(":")
        with socket.create_connection((host, int(port))):  # that sends nothing
            process.send_signal(signal_)
            out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert_no_complaint(err)
    assert out.splitlines()[-1] == "Stopped."


def test_other_machines_need_a_token(run: Path) -> None:
    process, url = started(run, "--host", "0.0.0.0", "--port", 0)
    try:
        local = url.replace("0.0.0.0", "127.0.0.1")
        assert "/?token=" in local
        root, _, token = local.partition("?token=")
        assert len(token) >= 32
        assert httpx.get(root).status_code == 401
        assert httpx.get(local).status_code == 303
        bearer = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{root}api/v1/about", headers=bearer).json()["items"] == 144
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert_no_complaint(err)
    finally:
        process.kill()


def assert_no_complaint(err: str) -> None:
    """TensorFlow has lines of its own to say when it is imported; nobody else has any."""
    if keras.backend.backend() == "tensorflow":
        assert "Traceback" not in err
        assert "rror" not in err.replace("round-off errors", "")
    else:
        assert err == ""


def refused(*arguments: object) -> tuple[int, str]:
    from typer.testing import CliRunner

    import kinfold_cli

    said = CliRunner().invoke(kinfold_cli.app, ["serve", *map(str, arguments)])
    assert said.stdout == ""
    assert said.stderr.count("\n") == 1, said.stderr
    return said.exit_code, said.stderr


def test_what_the_command_refuses(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = refused(tmp_path / "nothing")
    assert code == 2, said
    code, said = refused(run, "--port", 70000)
    assert (code, said) == (2, "error: A port is a number from 0 to 65535. Received: 70000.\n")
    code, said = refused(run, "--token", "é")
    assert (code, said) == (2, "error: A token must be of visible ASCII characters.\n")
    code, said = refused(run, "--host", "no.such.host.invalid", "--token", "x")
    assert code == 2
    assert said.startswith("error: There is no host 'no.such.host.invalid' to listen on")
    with listening_on("127.0.0.1", 0) as taken:
        code, said = refused(run, "--port", taken.getsockname()[1])
    assert code == 1
    assert said.endswith("Name another --port.\n")
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "index")
    code, said = refused(copy, "--port", 0)
    assert code == 2
    assert "There is no index in" in said
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "fastapi" else find(name, *a)
    )
    code, said = refused(run)
    assert (code, said) == (2, "error: Serving needs fastapi: pip install 'kinfold[serve]'\n")
