"""A bundle that is served: the answers of its run, where there is no Keras."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
from starlette.testclient import TestClient

from alone import WITHOUT_KERAS
from kinfold.shipping import export

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="ONNX is written by PyTorch"
)
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    export(run, out)
    return out


@pytest.fixture(scope="module")
def served(bundle: Path) -> Iterator[str]:
    """Where a server of the bundle listens, which is a process of its own."""
    command = [sys.executable, "-c", WITHOUT_KERAS, "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        root = process.stdout.readline().split()[-1].rstrip("/")
        yield root
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert process.returncode == 0


def asked(root: str, path: str, **given: Any) -> Any:
    request = urllib.request.Request(f"{root}/api/v1/{path}", **given)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_answers_as_its_run(served: str, client: TestClient, photos: Path) -> None:
    for path in ("threshold", "classes?limit=3", "items?id=class%203%2F2.png", "map?method=pca"):
        theirs, ours = asked(served, path), client.get(f"/api/v1/{path}").json()
        assert same(theirs, ours), path
    about = asked(served, "about")
    assert (about["name"], about["items"], about["takes_images"]) == ("bundle", 144, True)
    path = photos / "class 3" / "2.png"
    form = b'--b\r\nContent-Disposition: form-data; name="images"; filename="new.png"\r\n\r\n'
    body = form + path.read_bytes() + b"\r\n--b--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    theirs = asked(served, "search?k=3", data=body, headers=kind)
    ours = client.post("/api/v1/search?k=3", content=body, headers=kind).json()
    assert theirs["results"][0]["label"] == "class 3"
    assert same(theirs, ours)
    assert asked(served, "reload", method="POST")["index"] == 1


def same(one: Any, other: Any) -> bool:
    """Whether JSON is the same, up to what another runtime rounds in an embedding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == pytest.approx(other, abs=1e-5)
    return bool(one == other)


def test_the_code_of_its_page_runs(bundle: Path, photos: Path, tmp_path: Path, capsys) -> None:
    page = (Path(__file__).parents[2] / "docs" / "shipping.md").read_text("utf-8")
    block = re.search(r"^```python\n(.*?)^```$", page, re.M | re.S)
    assert block
    shutil.copytree(bundle, tmp_path / "bundle")
    shutil.copy(photos / "class 3" / "2.png", tmp_path / "new.jpg")
    with contextlib.chdir(tmp_path):
        exec(block[1], {})
    assert capsys.readouterr().out.startswith("class 3 ")
