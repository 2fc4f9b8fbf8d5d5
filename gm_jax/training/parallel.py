"""Where the step runs. This is the only file that names `pmap`, `Mesh` and `NamedSharding`.

A strategy takes the step of one device (`step.make_train_step(..., axis_name=strategy.axis_name)`) and runs it on all:

    jit    the global view: one program over the whole batch; numbers do not depend on the number of devices
    pmap   the local view: each device has its part of the batch; gradients are averaged and noise differs by device
    vmap   the local view on one device: the oracle with which the tests compare pmap, because it refuses a state that
           would drift apart between replicas

In all three the state is unstacked, so that nothing is replicated or unreplicated by hand, and a checkpoint does not
depend on the strategy that wrote it. Batches are [S, B, ...]: S steps of B examples in one call.

With several processes (`jax.distributed`) every process runs the same program: `shard` states which part of the global
batch it reads, and each process gets the whole result of an evaluation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gm_jax.errors import UserError
from gm_jax.training.state import TrainState
from gm_jax.training.step import TrainStep, many_steps
from gm_jax.types import Array, Batch, Device, Metrics, PyTree

AXIS = "batch"


class CompiledStep:
    """(state, placed batches [S, B, ...]) -> (state, metrics [S]): a function of `jax.jit` or `jax.pmap`.

    It donates the state: after a call only the returned state can be used.
    """

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        """Trains for S steps.

        Raises:
            UserError: the state was given to an earlier call.
        """
        if isinstance(state.step, jax.Array) and state.step.is_deleted():
            raise UserError(
                "this TrainState was given to a train step before, which has reused its memory: continue with the "
                "state that the step returned.\nTo keep a state, copy it before: jax.tree.map(jax.numpy.copy, state)."
            )
        return self.function(state, batches)

    def lower(self, *shapes: PyTree) -> jax.stages.Lowered:
        """Lowers the function for shapes of the state and of the batches, as `jax.jit(...).lower` does."""
        return self.function.lower(*shapes)


class Strategy(NamedTuple):
    """A way to run one device's step on many devices.

    Attributes:
        axis_name: the argument of `make_train_step`.
        num_shards: the global batch must be a multiple of it.
        shard: (index, count): this process reads part `index` of `count` contiguous parts of the global batch.
        compile: step -> ((state, placed batches) -> (state, metrics [S])), compiled at its first call; the state is
            donated.
        place: any pytree of arrays -> the same, on every device.
        place_batches: this process's part of host batches [S, B / count, ...] -> the compiled function's argument.
        compile_eval: (params, model_state, index, x [B, ...]) -> tree of [B] arrays, compiled in the global view, so
            that evaluations agree between strategies; x and the result are whole on every process.
        lower: (step, shapes of the state, shapes of the global batches [S, B, ...]) -> the function of `compile`,
            lowered from shapes alone; the devices may belong to a topology that does not exist here.
        spread: rows of model state [N, ...] -> the same, divided among the devices, for `make_train_step`: one program
            over all devices would else refresh all rows on every device. None if the step sees its own rows alone.
    """

    axis_name: str | None
    num_shards: int
    shard: tuple[int, int]
    compile: Callable[[TrainStep], CompiledStep]
    place: Callable[[PyTree], PyTree]
    place_batches: Callable[[Mapping[str, Array | np.ndarray]], Batch]
    compile_eval: Callable[[Callable], Callable]
    lower: Callable[[TrainStep, PyTree, PyTree], jax.stages.Lowered]
    spread: Callable[[PyTree], PyTree] | None = None


def jit(devices: Sequence[Device] | None = None) -> Strategy:
    """Runs one program over the whole batch, split over the devices (all by default)."""
    mesh = _mesh(devices)
    replicated, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(None, AXIS))

    def compile(step: TrainStep) -> CompiledStep:
        return CompiledStep(jax.jit(many_steps(step), donate_argnums=0, out_shardings=(replicated, replicated)))

    return Strategy(
        axis_name=None,
        num_shards=mesh.size,
        shard=(jax.process_index(), jax.process_count()),
        compile=compile,
        place=lambda tree: _place(tree, replicated),
        place_batches=lambda batches: jax.tree.map(lambda leaf: _place_part(leaf, split, axis=1), batches),
        compile_eval=lambda fn: _compile_eval(fn, mesh),
        lower=lambda step, state, batches: compile(step).lower(_shapes(state, replicated), _shapes(batches, split)),
        spread=None if mesh.size == 1 else lambda tree: _spread(tree, NamedSharding(mesh, PartitionSpec(AXIS))),
    )


def pmap(devices: Sequence[Device] | None = None) -> Strategy:
    """Runs each device on its part of the batch; gradients and metrics are averaged over devices."""
    mesh = _mesh(devices)
    replicated = NamedSharding(mesh, PartitionSpec())

    def compile(step: TrainStep) -> CompiledStep:
        mapped = jax.pmap(
            many_steps(step),
            AXIS,
            in_axes=(None, 0),
            out_axes=None,
            donate_argnums=0,
            devices=None if devices is None else list(devices),
        )
        return CompiledStep(mapped)

    return Strategy(
        axis_name=AXIS,
        num_shards=mesh.size,
        shard=(jax.process_index(), jax.process_count()),
        compile=compile,
        # Otherwise each call would copy the state to every device, and donation would free the copies.
        place=lambda tree: _place(tree, replicated),
        place_batches=lambda batches: jax.tree.map(lambda leaf: _shard(leaf, len(mesh.local_devices)), batches),
        compile_eval=lambda fn: _compile_eval(fn, mesh),
        lower=lambda step, state, batches: compile(step).lower(state, _shard_shapes(batches, mesh.size)),
    )


def vmap(num_shards: int) -> Strategy:
    """Computes on one device what pmap computes on `num_shards` devices: an oracle, not a way to train."""
    mesh = _mesh(jax.local_devices()[:1])
    replicated = NamedSharding(mesh, PartitionSpec())

    def compile(step: TrainStep) -> CompiledStep:
        return CompiledStep(jax.jit(jax.vmap(many_steps(step), in_axes=(None, 0), out_axes=None, axis_name=AXIS)))

    return Strategy(
        axis_name=AXIS,
        num_shards=num_shards,
        shard=(0, 1),
        compile=compile,
        place=lambda tree: jax.device_put(tree, replicated),
        place_batches=lambda batches: jax.tree.map(lambda leaf: _shard(leaf, num_shards), batches),
        compile_eval=lambda fn: _compile_eval(fn, mesh),
        lower=lambda step, state, batches: compile(step).lower(state, _shard_shapes(batches, num_shards)),
    )


def check_batch_size(batch_size: int, strategy: Strategy) -> None:
    """Refuses a global batch that cannot be divided evenly among the devices.

    Raises:
        UserError: batch_size is not a positive multiple of the strategy's number of devices.
    """
    if batch_size < 1 or batch_size % strategy.num_shards:
        raise UserError(
            f"a batch of {batch_size} cannot be divided among {strategy.num_shards} devices:\n"
            f"choose a --train.batch-size that is a multiple of {strategy.num_shards}, e.g. "
            f"{max(1, round(batch_size / strategy.num_shards)) * strategy.num_shards}."
        )


def local(tree: PyTree) -> PyTree:
    """Returns a tree that is whole on every device as arrays of this process alone, for work that one process does."""
    return jax.tree.map(lambda leaf: leaf if leaf.is_fully_addressable else leaf.addressable_data(0), tree)


def everywhere(tree: PyTree) -> PyTree:
    """Inverts `local`, in the same buffers, for a tree that is equal on every process.

    With several processes pmap returns a state of this process's devices alone; this makes it global.
    """
    if jax.process_count() == 1:
        return tree
    replicated = NamedSharding(_mesh(None), PartitionSpec())

    def place(leaf: Array) -> Array:
        if not leaf.is_fully_addressable:
            return leaf
        parts = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, replicated, parts)

    return jax.tree.map(place, tree)


def _spread(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Divides the rows of each leaf among the devices, if their number can be divided."""

    def spread(leaf: Array) -> Array:
        return leaf if leaf.shape[0] % sharding.mesh.size else jax.lax.with_sharding_constraint(leaf, sharding)

    return jax.tree.map(spread, tree)


def _mesh(devices: Sequence[Device] | None) -> Mesh:
    # By process, so that a process reads the contiguous part of the batch that its devices hold.
    by_process = sorted(jax.devices() if devices is None else devices, key=lambda device: device.process_index)
    return Mesh(np.array(by_process), (AXIS,))


def _place(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Makes global arrays of values that every process has whole, in new buffers, because the step donates them."""
    if sharding.is_fully_addressable:
        return jax.tree.map(jnp.copy, jax.device_put(tree, sharding))

    def place(leaf: Array) -> Array:
        value = np.asarray(leaf)
        return jnp.copy(jax.make_array_from_callback(value.shape, sharding, lambda index: value[index]))

    return jax.tree.map(place, tree)


def _place_part(leaf: Array, sharding: NamedSharding, *, axis: int) -> Array:
    """Makes the global array of a leaf that is split along one axis, from this process's part."""
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    shape = list(leaf.shape)
    shape[axis] *= jax.process_count()
    return jax.make_array_from_process_local_data(sharding, np.asarray(leaf), tuple(shape))


def _shard(leaf: Array, num_shards: int) -> Array:
    """[S, B, ...] -> [D, S, B / D, ...]."""
    steps, batch_size, *event = leaf.shape
    return leaf.reshape(steps, num_shards, batch_size // num_shards, *event).swapaxes(0, 1)


def _shapes(tree: PyTree, sharding: NamedSharding) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def _shard_shapes(tree: PyTree, num_shards: int) -> PyTree:
    """Applies `_shard` to shapes."""
    return jax.eval_shape(lambda tree: jax.tree.map(lambda leaf: _shard(leaf, num_shards), tree), tree)


def _compile_eval(fn: Callable, mesh: Mesh) -> Callable:
    replicated, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS))
    compiled = jax.jit(fn, in_shardings=(replicated, replicated, replicated, split), out_shardings=replicated)

    def evaluate(params: PyTree, model_state: PyTree, index: int, x: Array) -> PyTree:
        return compiled(params, model_state, _place(np.int32(index), replicated), _place(x, split))

    return evaluate
