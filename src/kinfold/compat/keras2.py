"""What the peers took from Keras 2."""


def reduction(value: str | None) -> str | None:
    """Return the Keras 3 name of a Keras 2 reduction ("auto" is the batch mean)."""
    return "sum_over_batch_size" if value == "auto" else value
