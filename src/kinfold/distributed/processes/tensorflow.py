"""On TensorFlow one process reads the data of all replicas; Keras cuts each batch for them."""


def rank_and_size() -> tuple[int, int]:
    """One process."""
    return 0, 1
