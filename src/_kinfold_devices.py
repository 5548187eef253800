"""What must be set for several devices before JAX starts; shared with `kinfold_cli`.

This module stands beside the package and imports neither Keras nor a backend.
"""

import json
import os
from pathlib import Path

HOST_DEVICES = "--xla_force_host_platform_device_count"


def ask(backend: str, count: int) -> None:
    """Let JAX make `count` devices of this machine's CPU, where it finds no accelerator.

    XLA reads XLA_FLAGS once, when JAX first looks for devices. What the user set stays.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if backend == "jax" and count > 1 and HOST_DEVICES not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {HOST_DEVICES}={count}".strip()


def of_run(run: Path) -> int:
    """The number of devices in the settings of a run; 1 where there is none to read."""
    try:
        settings = json.loads((run / "config.json").read_text(encoding="utf-8"))["settings"]
        return int(settings.get("devices", 1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 1
