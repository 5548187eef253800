"""Shared by all tests: which backend they run on, and a clean slate for each."""

import contextlib
import gc
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The tests compile thousands of tiny programs: less optimised ones are ready much sooner. XLA ends
# the process for a flag that it does not know, and newer ones do not know the last two.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
with contextlib.suppress(importlib.metadata.PackageNotFoundError):
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] += (
            " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        )
# Triton decides when it is imported, which PyTorch does: without a GPU its interpreter runs.
if not Path("/proc/driver/nvidia/version").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# Before TensorFlow, after which it does not load (two copies of LLVM), and PyTorch asks for it.
with contextlib.suppress(ImportError):
    import triton  # noqa: F401

import keras
import pytest

if keras.backend.backend() == "jax":
    from jax._src.lib import xla_client

    xla_client.Traceback.enabled = False  # JAX keeps one for each operation, of all of pytest

# Compiled programs are millions of objects, which Python would otherwise look at all the time.
gc.set_threshold(100_000, 20, 1000)


def pytest_report_header() -> str:
    return f"keras {keras.__version__} on {keras.backend.backend()}"


@pytest.fixture(autouse=True)
def seeded() -> None:
    keras.utils.set_random_seed(7)


@pytest.fixture(autouse=True)
def settings_stay() -> Iterator[None]:
    """No test may leave a setting behind that changes the digits of those after it."""
    before = _settings()
    yield
    assert _settings() == before


def _settings() -> dict[str, object]:
    found = {"floatx": keras.config.floatx(), "policy": keras.config.dtype_policy().name}
    if keras.backend.backend() == "jax":
        import jax

        found["products"] = jax.config.jax_default_matmul_precision
        found["64 bits"] = jax.config.jax_enable_x64
    elif keras.backend.backend() == "torch":
        import torch

        found["products"] = torch.get_float32_matmul_precision()
        found["threads"] = torch.get_num_threads()
        found["dtype"] = torch.get_default_dtype()
    return found


@pytest.fixture(scope="module", autouse=True)
def forget_what_was_compiled() -> Iterator[None]:
    """Bound the memory of a run: no module needs what another one compiled."""
    yield
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()
    elif keras.backend.backend() == "tensorflow":
        from kinfold.streaming.tensorflow import compiled

        compiled.cache_clear()
    keras.utils.clear_session()
    gc.collect()


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let JAX keep what it compiles, as the runs here compile the same again and again."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    names = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
