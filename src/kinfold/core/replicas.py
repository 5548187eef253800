"""What a loss refuses while it can see a part of the batch alone."""

import keras


def refuse_replicas() -> None:
    """A pair loss needs the whole batch; a replica or a process of several holds a part of it."""
    if keras.backend.backend() == "torch":
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return
        count = distributed.get_world_size()
        if count > 1:
            raise NotImplementedError(
                f"A pair loss in one of {count} processes of torch.distributed would see only that "
                "process's part of the batch, and its pairs with the other parts would be lost. "
                "Train in one process, without a process group."
            )
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise NotImplementedError(
                "A pair loss under a tf.distribute strategy would see only each replica's part of "
                "the batch, and its pairs across replicas would be lost. Use one replica, or the "
                "JAX backend with keras.distribution, where the batch stays whole."
            )
