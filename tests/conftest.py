"""Shared by all tests: which backend they run on, and a clean slate for each."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The tests compile thousands of tiny programs: less optimised ones are ready in half the time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Triton decides when it is imported, which PyTorch does: without a GPU its interpreter runs.
if not Path("/proc/driver/nvidia/version").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import keras
import pytest


def pytest_report_header() -> str:
    return f"keras {keras.__version__} on {keras.backend.backend()}"


@pytest.fixture(autouse=True)
def seeded() -> None:
    keras.utils.set_random_seed(7)
