"""Shared by all tests: which backend they run on, and a clean slate for each."""

import os

import keras
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_report_header() -> str:
    return f"keras {keras.__version__} on {keras.backend.backend()}"


@pytest.fixture(autouse=True)
def seeded() -> None:
    keras.utils.set_random_seed(7)
