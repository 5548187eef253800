"""What the peers took from Keras 2."""

from typing import Any


def reduction(value: str | None) -> str | None:
    """Return the Keras 3 name of a Keras 2 reduction ("auto" is the batch mean)."""
    return "sum_over_batch_size" if value == "auto" else value


def rename_reduction(arguments: dict[str, Any]) -> None:
    """Put the Keras 3 name, or the default, in the place of a constructor's `reduction`."""
    arguments["reduction"] = reduction(arguments.get("reduction", "sum_over_batch_size"))
