"""On JAX there are no ranks: an array is the whole batch, whatever devices it lies on."""

from typing import Any

import jax


def ranks(x: jax.Array) -> Any:
    """None; raises where a function sees one device's rows."""
    mesh = jax.sharding.get_abstract_mesh()
    if names := [name for name in mesh.manual_axes if mesh.shape[name] > 1]:
        raise NotImplementedError(
            f"Inside `shard_map` or `pmap` over {', '.join(map(str, names))} a loss sees one "
            "device's rows. Call it outside, on the sharded batch, or use "
            "gather_across_devices=False for the loss of a device's rows."
        )
    return None
