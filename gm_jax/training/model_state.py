"""How the devices of a mapped step keep one model state, by what `Model.sync` declares for each collection.

    Mean        the step averages it over devices
    Replicated  every device computes the same
    Fixed       the step keeps the old value
    Rows        a loss sees this device's rows of the block; the step gathers the refreshed rows of all devices, unless
                they are fixed

Before a loss the step calls `local_view`, after it `merge`. The axis is named here and in the step, so that no family
needs it. Without an axis there is one device, which sees the whole block.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.types import Array, Fixed, Mean, ModelState, PyTree, Replicated, Rows, Sync


def check(model_state: ModelState, sync: Mapping[str, Sync]) -> None:
    """Checks that every collection of a model state is declared.

    Raises:
        ValueError: `sync` lacks a collection, which the message names.
    """
    _map(lambda *_: None, sync, model_state)


def check_rows(model_state: ModelState, sync: Mapping[str, Sync], *, batch_size: int, devices: int) -> None:
    """Checks that the rows of a model state, or of its shapes, can be divided into blocks, and a block among devices.

    Args:
        model_state: the whole state.
        sync: the model's declarations.
        batch_size: examples of the global batch.
        devices: of a mapped step; 1 for one program over all devices.

    Raises:
        UserError: they cannot.
    """

    def check_one(declared: Sync, name: str, collection: Any) -> None:
        if isinstance(declared, Rows):
            _rows_per_step(declared, name, collection, batch_size, devices)

    _map(check_one, sync, model_state)


def local_view(
    model_state: ModelState,
    sync: Mapping[str, Sync],
    *,
    batch_size: int,
    axis_name: str | None,
    spread: Callable[[PyTree], PyTree] | None = None,
) -> ModelState:
    """Returns what a loss sees: this device's rows of the current block of each `Rows`, and all other state whole.

    Args:
        model_state: the whole state, equal on every device.
        sync: the model's declarations.
        batch_size: examples of this device's batch.
        axis_name: the mapped axis, if any.
        spread: divides the rows of a block among devices that run one program; None to leave them.

    Raises:
        UserError: rows cannot be divided into blocks, or a block among devices.
    """

    def view(declared: Sync, name: str, collection: Any) -> Any:
        if not isinstance(declared, Rows):
            return collection
        _, start, size = _block(declared, name, collection, batch_size, axis_name)
        rows = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), collection["rows"])
        return {**collection, "rows": rows if spread is None else spread(rows)}

    return _map(view, sync, model_state)


def merge(
    old: ModelState, new: ModelState, sync: Mapping[str, Sync], *, batch_size: int, axis_name: str | None
) -> ModelState:
    """Returns the whole model state, equal on every device, after a loss has changed its local view.

    Args:
        old: the whole state before the loss.
        new: what the loss returned for its local view.
        sync: the model's declarations.
        batch_size: examples of this device's batch.
        axis_name: the mapped axis, if any.
    """

    def merge_one(declared: Mean | Replicated | Fixed | Rows, name: str, before: Any, after: Any) -> Any:
        if isinstance(declared, Mean):
            return _mean_of_changed(before, after, axis_name)
        if isinstance(declared, Replicated):
            return after
        if isinstance(declared, Fixed) or declared.fixed:
            return before
        start, _, size = _block(declared, name, before, batch_size, axis_name)

        def write(whole: Array, part: Array) -> Array:
            if part.shape != (size, *whole.shape[1:]) or part.dtype != whole.dtype:
                raise ValueError(
                    f"{name} must return its {size} rows as {whole.dtype}[{size}, ...]: got {part.dtype}{part.shape}"
                )
            rows = part if axis_name is None else jax.lax.all_gather(part, axis_name, tiled=True)
            return jax.lax.dynamic_update_slice_in_dim(whole, rows, start, 0)

        return {"rows": jax.tree.map(write, before["rows"], after["rows"]), "count": after["count"]}

    return _map(merge_one, sync, old, new)


def mean_over_devices(tree: PyTree, axis_name: str | None) -> PyTree:
    """Averages over the mapped axis; integers, which agree on all devices, stay exact by a maximum."""
    if axis_name is None:
        return tree

    def mean(leaf: Array) -> Array:
        floating = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return jax.lax.pmean(leaf, axis_name) if floating else jax.lax.pmax(leaf, axis_name)

    return jax.tree.map(mean, tree)


def _mean_of_changed(before: PyTree, after: PyTree, axis_name: str | None) -> PyTree:
    """Averages the leaves that a device has changed; the others stay bit for bit, because a mean rounds.

    Integers, such as counts, agree on all devices and are not sent.
    """
    leaves, structure = jax.tree.flatten(after)
    old = structure.flatten_up_to(before)
    floating = [index for index, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if axis_name is None or not floating:
        return after
    changed = jnp.stack([jnp.any(old[index] != leaves[index]) for index in floating])
    # A sum of floats, because it then travels with the gradients in one all-reduce.
    changed = jax.lax.psum(changed.astype(jnp.float32), axis_name) > 0
    for index, is_changed in zip(floating, changed, strict=True):
        leaves[index] = jnp.where(is_changed, jax.lax.pmean(leaves[index], axis_name), old[index])
    return structure.unflatten(leaves)


def _map(fn: Any, sync: Mapping[str, Sync], *states: Mapping[str, Any], name: str = "model_state") -> dict[str, Any]:
    """Applies fn(declared, name, *collections) to each collection that has a declaration of its own."""
    found = {}
    for key in states[0]:
        path = f"{name}[{key!r}]"
        if key not in sync:
            raise ValueError(
                f"Model.sync does not declare {path}, so the step does not know how devices keep it: declare it as "
                "Mean(), Replicated(), Fixed() or Rows() (gm_jax.types)"
            )
        parts = [state[key] for state in states]
        declared = sync[key]
        found[key] = (
            _map(fn, declared, *parts, name=path) if isinstance(declared, Mapping) else fn(declared, path, *parts)
        )
    return found


def _block(
    declared: Rows, name: str, collection: Mapping[str, Any], batch_size: int, axis_name: str | None
) -> tuple[Array, Array, int]:
    """Returns the first row of the current block, this device's first row in it, and this device's number of rows."""
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    if set(collection) != {"rows", "count"}:
        raise ValueError(f"{name} is declared as Rows() and must hold rows and count alone: got {sorted(collection)}")
    num_rows, per_step = _rows_per_step(declared, name, collection, batch_size * devices, devices)
    size = per_step // devices
    start = (collection["count"] % (num_rows // per_step)) * per_step
    return start, start if axis_name is None else start + size * jax.lax.axis_index(axis_name), size


def _rows_per_step(
    declared: Rows, name: str, collection: Mapping[str, Any], batch_size: int, devices: int
) -> tuple[int, int]:
    """Returns the number of rows, and how many of them a step refreshes on all devices."""
    num_rows = jax.tree.leaves(collection["rows"])[0].shape[0]
    per_step = batch_size if declared.per_step is None else declared.per_step
    if num_rows % per_step or per_step % devices:
        raise UserError(
            f"{name} has {num_rows} rows, of which a step refreshes {per_step} on {devices} devices:\n"
            "choose rows, such as chains, that are a multiple of the rows per step, and rows per step that are a "
            "multiple of the devices."
        )
    return num_rows, per_step
