"""The nearest items on a device: here the processor, taken for one."""

import numpy as np
import pytest

from kinfold.metrics import neighbours, on_device, product
from kinfold.metrics.shortlists import TooManyTiesError

DISTANCES = ("cosine", "euclidean", "squared_euclidean", "inner_product")


@pytest.fixture
def device(monkeypatch):
    """Says whether products are computed on a device, in small blocks."""
    monkeypatch.setattr(on_device, "ROWS", 300)
    monkeypatch.setattr(on_device, "ITEMS", 500)

    def choose(wanted: bool) -> None:
        monkeypatch.setattr(product, "on_device", lambda: wanted)

    return choose


@pytest.mark.parametrize("far", [0.0, 50.0])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("own", [True, False])
def test_as_on_the_processor(own: bool, distance: str, far: float, device) -> None:
    """Among whole numbers, which both multiply exactly: with copies, ties and zero rows."""
    rng = np.random.default_rng(0)
    x, r = (rng.integers(-9, 10, (count, 6)).astype("float32") + far for count in (900, 1200))
    x[5:9], r[3], x[11] = x[4], x[7], 0.0
    for k in (1, 20):
        found = []
        for wanted in (False, True):
            device(wanted)
            found.append(neighbours(x, k, None if own else r, distance=distance))
        (items, distances), (others, same) = found
        np.testing.assert_allclose(same, distances, rtol=1e-5, atol=1e-5)
        apart = items != others  # of items as far as each other but for rounding
        assert np.mean(apart) < 0.01
        np.testing.assert_allclose(same[apart], distances[apart], rtol=1e-5, atol=1e-5)


def test_says_that_more_tie_than_it_keeps() -> None:
    x, keep = np.ones((4, 2), np.float32), np.full(4, np.inf, np.float32)
    r = np.ones((100, 2), np.float32)
    with pytest.raises(TooManyTiesError):
        on_device.best(x, r, 3, keep, None, False)
    scores, items = on_device.best(x, r[:20], 3, keep, None, False)
    assert scores.shape == (4, 20)
    assert sorted(items[0].tolist()) == list(range(20))
