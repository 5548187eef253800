"""JAX arrays that lie on several devices: each device takes its own anchors.

XLA would share a product over devices by itself, but runs what it cannot cut whole on each of them.
Here a device is given its rows and all references, whose gradients return to the device that holds
them.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
from jax.sharding import PartitionSpec as P

from kinfold.core.checks import is_concrete


class Devices(NamedTuple):
    """Devices that share the rows of a batch.

    Attributes:
        mesh: of JAX.
        axes: names of the axes of the mesh over which rows are cut.
    """

    mesh: Any
    axes: tuple[str, ...]

    @property
    def size(self) -> int:
        return math.prod(self.mesh.shape[name] for name in self.axes)

    def hold_whole(self, x: jax.Array) -> bool:
        """Whether the rows cannot be shared evenly, so that each device is given all."""
        return x.shape[0] % self.size != 0


def of(x: jax.Array) -> Devices | None:
    """The devices over which the rows of `x` are to be shared; None for one.

    Those of the mesh in sight: that of `x` itself, `jax.set_mesh`, or `keras.distribution`. Where
    a compiled function hides it, or the rows do not come out even, XLA shares what it can.
    """
    mesh = _mesh(x)
    if mesh is None:
        return None
    every = tuple(mesh.axis_names)
    for axes in (every, every[:1]):
        devices = Devices(mesh, axes)
        if devices.size > 1 and not devices.hold_whole(x):
            return devices
    return None


def _mesh(x: jax.Array) -> Any:
    ambient = jax.sharding.get_abstract_mesh()
    if ambient.manual_axes:  # within a device already
        return None
    if is_concrete(x):
        mesh = getattr(x.sharding, "mesh", None)
        return None if mesh is None or mesh.size == 1 else mesh
    if not ambient.empty:
        return ambient
    distribution = keras.distribution.distribution()
    return None if distribution is None else distribution.device_mesh.backend_mesh


@partial(jax.jit, static_argnums=(0, 1))
def shared(fn: Any, devices: Devices, rows: Any, every: Any, whole: Any) -> tuple[Any, Any]:
    """`fn(rows, every, whole)` on each device, with its part of `rows` and all of the others.

    Args:
        fn: hashable; returns a sum over rows, or numbers [n], and numbers [n].
        devices: see `of`.
        rows: a tree of arrays [n, ...].
        every: a tree of arrays [m, ...] that may lie on the devices too.
        whole: a tree of arrays that each device is given as they are.
    """
    cut, summed = P(devices.axes), []
    sharded = jax.tree.map(lambda a: not devices.hold_whole(a), every)

    def own(rows: Any, every: Any, whole: Any) -> Any:
        def gathered(a: Any, is_cut: bool) -> Any:
            return jax.lax.all_gather(a, devices.axes, axis=0, tiled=True) if is_cut else a

        found, of_rows = fn(rows, jax.tree.map(gathered, every, sharded), whole)
        summed.append(found.ndim == 0)
        return found[None] if found.ndim == 0 else found, of_rows

    specs = (
        jax.tree.map(lambda _: cut, rows),
        jax.tree.map(lambda is_cut: cut if is_cut else P(), sharded),
        jax.tree.map(lambda _: P(), whole),
    )
    on_each = jax.shard_map(own, mesh=devices.mesh, in_specs=specs, out_specs=cut, check_vma=False)
    found, of_rows = on_each(rows, every, whole)
    return jnp.sum(found) if summed[0] else found, of_rows
