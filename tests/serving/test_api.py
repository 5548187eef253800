"""The API: what it finds, what it tells, and in which words it refuses."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import kinfold
from kinfold import trained
from kinfold_serving.app import make_app
from kinfold_serving.guard import is_loopback
from kinfold_serving.served import ServedRun
from kinfold_serving.service import Service
from runs import CLASSES, EACH, run_on_vectors

from .conftest import EVIL

API = "/api/v1"


def images(*paths: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (path.name, path.read_bytes())) for path in paths]


def eventually(ask: Callable[[], Any]) -> Any:
    """The first answer that is not 202."""
    for _ in range(200):
        answer = ask()
        if answer.status_code != 202:
            return answer
        time.sleep(0.1)
    raise AssertionError("it is still being computed")


def test_a_batch_of_images_is_answered_as_match_does(
    client: TestClient, run: Path, photos: Path
) -> None:
    paths = [photos / "class 3" / "2.png", photos / EVIL / "0.png", photos / "class 9" / "1.png"]
    answer = client.post(f"{API}/search", params={"k": 4}, files=images(*paths))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    used = kinfold.load(run)
    expected = used.match(paths, k=4)
    assert found["threshold"] == pytest.approx(used.threshold().distance)
    assert [one["name"] for one in found["results"]] == ["2.png", "0.png", "1.png"]
    for one, match in zip(found["results"], expected, strict=True):
        assert one["known"] == match.known
        assert one["label"] == (match.label if match.known else None)
        assert [near["id"] for near in one["neighbours"]] == match.neighbours.ids.tolist()
        distances = [near["distance"] for near in one["neighbours"]]
        np.testing.assert_allclose(distances, match.neighbours.distances, atol=1e-5)
        assert all("file" not in near["metadata"] for near in one["neighbours"])


def test_vectors_and_what_is_wrong_with_them(client: TestClient, run: Path) -> None:
    used = kinfold.load(run)
    vectors = used.index.vectors(np.array([5, 17]))
    answer = client.post(
        f"{API}/search/vectors", json={"embeddings": vectors.tolist(), "k": 2}
    ).json()
    nearest = [one["neighbours"][0]["id"] for one in answer["results"]]
    assert nearest == used.index.ids[[5, 17]].tolist()
    for body, status, said in (
        ({}, 422, "Send either embeddings or inputs."),
        ({"embeddings": []}, 422, "There is nothing to search for."),
        ({"embeddings": [[1, 2], [1]]}, 422, "Vectors must be of one length."),
        ({"embeddings": [[1, 2]]}, 422, "Vectors must have 8 numbers. Received 2."),
        ({"embeddings": [[1e39] + 7 * [0]]}, 422, "Vectors must be of finite numbers."),
        ({"embeddings": [8 * ["x"]]}, 422, "embeddings.0.0: Input should be a valid number"),
        ({"embeddings": [8 * [0.5]], "k": 0}, 422, "k: Input should be greater than or equal to"),
        ({"inputs": [8 * [0.5]]}, 400, "The model takes images: POST them to search."),
        ({"embeddings": 1025 * [8 * [0.5]]}, 422, "embeddings: List should have at most 1024"),
    ):
        refused = client.post(f"{API}/search/vectors", json=body)
        assert refused.status_code == status, refused.text
        assert refused.json()["detail"].startswith(said), refused.text
    assert client.post(f"{API}/search/vectors", content=b"{").status_code == 422


def test_a_run_of_vectors_is_served_too(tmp_path: Path) -> None:
    x, _ = run_on_vectors(tmp_path / "v.npz", tmp_path / "run")
    trained.index(tmp_path / "run", str(tmp_path / "v.npz"))
    with TestClient(make_app(Service(ServedRun(kinfold.load(tmp_path / "run"))))) as client:
        answer = client.post(f"{API}/search/vectors", json={"inputs": x[:2].tolist()})
        nearest = [one["neighbours"][0] for one in answer.json()["results"]]
        assert [one["id"] for one in nearest] == ["v.npz#0", "v.npz#1"]
        assert [one["image"] for one in nearest] == [None, None]
        refused = client.post(f"{API}/search", files=[("images", ("x.png", b"x"))])
        assert refused.status_code == 400
        assert "takes vectors" in refused.json()["detail"]
        picture = client.get(f"{API}/items/image", params={"id": "v.npz#0"})
        assert (picture.status_code, picture.json()["detail"]) == (404, "This item has no picture.")
        assert client.get(f"{API}/about").json()["takes_images"] is False


def test_classes_their_items_and_their_pictures(client: TestClient) -> None:
    answer = client.get(f"{API}/classes", params={"limit": 5}).json()
    assert answer["total"] == CLASSES
    names = [one["label"] for one in answer["classes"]]
    assert names == [EVIL, "class 0", "class 1", "class 2", "class 3"]  # 2 before 10
    assert client.get(f"{API}/classes", params={"q": "ONERROR"}).json()["total"] == 1
    members = client.get(f"{API}/classes/items", params={"label": EVIL, "offset": 2}).json()
    assert members["total"] == EACH
    assert [one["id"] for one in members["items"]] == [f"{EVIL}/{k}.png" for k in range(2, EACH)]
    picture = client.get(members["items"][0]["image"])
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")
    assert client.get(f"{API}/classes/items", params={"label": "class"}).status_code == 404
    assert client.get(f"{API}/classes/items").status_code == 404  # all have a label


def test_the_neighbours_of_an_item_are_without_itself(client: TestClient) -> None:
    item = f"{EVIL}/3.png"
    assert client.get(f"{API}/items", params={"id": item}).json()["label"] == EVIL
    answer = client.get(f"{API}/items/neighbours", params={"id": item, "k": 6}).json()
    found = [one["id"] for one in answer["results"][0]["neighbours"]]
    assert len(found) == 6
    assert item not in found


def test_the_curves_are_those_of_the_run(client: TestClient, run: Path) -> None:
    used = kinfold.load(run)
    answer = client.get(f"{API}/threshold").json()
    for name, threshold in (("query", used.threshold()), ("pair", used.thresholds.pairs())):
        curve = answer[name]
        assert curve["per"] == threshold.per
        assert curve["current"] == pytest.approx(threshold.distance)
        np.testing.assert_allclose(curve["far"], threshold.curve.far)
        np.testing.assert_allclose(curve["frr"], 1 - threshold.curve.recall)
        assert len(curve["distance"]) == len(curve["far"])


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_map_holds_every_item_once(client: TestClient, method: str) -> None:
    found = eventually(lambda: client.get(f"{API}/map", params={"method": method})).json()
    assert found["method"] == method
    assert found["total"] == CLASSES * EACH
    assert len({one["id"] for one in found["items"]}) == CLASSES * EACH
    at = np.array([found["x"], found["y"]]).T
    assert np.abs(at).max() == pytest.approx(1, abs=1e-3)
    labels = np.array([one["label"] for one in found["items"]])
    apart = np.linalg.norm(at[:, None] - at, axis=-1)
    same = labels[:, None] == labels
    assert apart[same].mean() < 0.5 * apart[~same].mean()
    assert client.get(f"{API}/map", params={"method": "magic"}).status_code == 422


def test_health_and_metrics(client: TestClient) -> None:
    health = client.get(f"{API}/health").json()
    assert health == {"status": "ok", "index": 0, "items": CLASSES * EACH}
    client.get("/no/such/page")
    answer = client.get(f"{API}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = dict(
        line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")
    )
    of = 'method="GET",route="/api/v1/health",status="200"'
    assert float(lines[f"kinfold_requests_total{{{of}}}"]) >= 1
    assert 'kinfold_requests_total{method="GET",route="other",status="404"}' in lines
    assert float(lines["kinfold_index_items"]) == CLASSES * EACH
    count = 'kinfold_request_seconds_count{route="/api/v1/health"}'
    last = 'kinfold_request_seconds_bucket{route="/api/v1/health",le="+Inf"}'
    assert lines[count] == lines[last]


def test_every_route_is_described(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert len(described["paths"]) == 13
    for path, ways in described["paths"].items():
        for way in ways.values():
            assert way["summary"], path
            assert way["description"], path
    page = client.get("/docs")
    assert page.status_code == 200
    assert "http" not in page.text  # nothing comes from another server
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "plotly.min.js"):
        assert client.get(f"/libraries/{name}").status_code == 200


def test_a_token_is_asked_for(service: Service, photos: Path) -> None:
    app = make_app(service, "secret word", None)
    client = TestClient(app, follow_redirects=False)
    for path in ("/", "/docs", "/openapi.json", "/static/main.js", f"{API}/classes", "/x"):
        assert client.get(path).status_code == 401, path
    assert client.get(f"{API}/metrics").headers["www-authenticate"] == "Bearer"
    assert client.post(f"{API}/reload").status_code == 401
    assert client.get(f"{API}/health").status_code == 200
    for wrong in ("Bearer secret", "Bearer", "Basic secret word", "secret word", "Bearer é"):
        headers = {"Authorization": wrong.encode()}
        assert client.get(f"{API}/classes", headers=headers).status_code == 401
    right = {"Authorization": "Bearer secret word"}
    assert client.get(f"{API}/classes", headers=right).status_code == 200
    assert client.get("/", params={"token": "secret"}).status_code == 401
    assert client.get(f"{API}/classes", params={"token": "secret word"}).status_code == 401
    moved = client.get("/", params={"token": "secret word"})
    assert (moved.status_code, moved.headers["location"]) == (303, "/")
    cookie = moved.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/").status_code == 200  # the client keeps the cookie
    assert client.get(f"{API}/classes").status_code == 200


def test_other_sites_are_kept_out(service: Service) -> None:
    client = TestClient(make_app(service, None, ["testserver", "::1"]))
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/", headers={"Host": "[::1]:8000"}).status_code == 200
    evil = {"Origin": "http://evil.example"}
    assert client.post(f"{API}/reload", headers=evil).status_code == 403
    assert client.post(f"{API}/reload", headers={"Origin": "null"}).status_code == 403
    own = {"Origin": "http://testserver"}
    assert client.post(f"{API}/reload", headers=own).status_code == 200
    answer = client.get("/", headers=evil)
    assert "access-control-allow-origin" not in answer.headers
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe-eval" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    page = answer.text
    assert "onclick" not in page
    assert page.count("<script") == page.count('src="/static/main.js"') == 1


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.4", False), ("example.org", False),
    ],
)  # fmt: skip
def test_which_hosts_are_this_machine_alone(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_a_run_that_is_not_calibrated_gives_no_verdicts(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "calibration.npz").unlink()
    service = Service(ServedRun(kinfold.load(copy)))
    with TestClient(make_app(service)) as client:
        answer = client.get(f"{API}/threshold").json()
        assert answer["query"] is None
        assert "is not calibrated yet" in answer["why"]
        item = client.get(f"{API}/items/neighbours", params={"id": "class 0/0.png"}).json()
        (result,) = item["results"]
        assert (result["known"], result["label"]) == (None, None)
        assert len(result["neighbours"]) == 5
        (copy / "index" / "index.json").write_text("{}")
        refused = client.post(f"{API}/reload")
        assert refused.status_code == 409
        assert refused.json()["detail"].startswith("The index before stays in use.")
        assert client.get(f"{API}/items", params={"id": "class 0/0.png"}).status_code == 200
