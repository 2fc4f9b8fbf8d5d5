"""Plans the train step of an experiment for a TPU topology, without any TPU."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import jax

from gm_jax.errors import UserError
from gm_jax.planning import roofline, tpus
from gm_jax.training import parallel
from gm_jax.training.step import TrainStep
from gm_jax.types import Device, PyTree

_STRATEGIES = {"jit": parallel.jit, "pmap": parallel.pmap}


class Plan(NamedTuple):
    """The train step of one experiment on one slice.

    Attributes:
        slice: the chips.
        strategy: how the chips share the work, "jit" or "pmap".
        batch_size: global batch size.
        steps_per_call: steps in one call of the compiled program.
        num_params: parameters of all players.
        state_bytes: bytes of the whole state, without padding.
        cost: the compiler's analysis; None if the program does not fit.
        refusal: the compiler's message if it does not fit.
    """

    slice: tpus.Slice
    strategy: str
    batch_size: int
    steps_per_call: int
    num_params: int
    state_bytes: int
    cost: roofline.Cost | None
    refusal: str | None = None

    @property
    def fits(self) -> bool:
        """Whether the program fits into a chip's memory, as the compiler decides."""
        return self.cost is not None

    @property
    def known_cost(self) -> roofline.Cost:
        """The compiler's analysis of a program that fits.

        Raises:
            ValueError: the program does not fit.
        """
        if self.cost is None:
            raise ValueError(f"the step does not fit {self.slice.name}, so its cost is unknown: check `fits` first")
        return self.cost

    @property
    def roofline(self) -> roofline.Roofline:
        """The times that bound a step."""
        return roofline.roofline(self.known_cost, self.slice)

    @property
    def examples_per_second(self) -> float:
        """Examples per second over all chips."""
        return self.batch_size / self.roofline.seconds

    @property
    def share_of_peak(self) -> float:
        """Share of the peak FLOP/s of the chips' matrix units."""
        return self.roofline.compute / self.roofline.seconds


def global_batch(batch_size: int, batch_per_chip: int | None, wanted: tpus.Slice) -> int:
    """Returns the examples per step over all chips: `batch_per_chip` on each if given, or else `batch_size`.

    Raises:
        UserError: `batch_size` is not a multiple of the number of chips.
    """
    if batch_per_chip is not None:
        return batch_per_chip * wanted.num_chips
    if batch_size % wanted.num_chips:
        raise UserError(
            f"a batch of {batch_size} cannot be split evenly over the {wanted.num_chips} chips of {wanted.name}:\n"
            f"choose a --train.batch-size that is a multiple of {wanted.num_chips}, or give --batch-per-chip."
        )
    return batch_size


def make_plan(
    make_step: Callable[[parallel.Strategy], TrainStep],
    state: PyTree,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    wanted: tpus.Slice,
    devices: Sequence[Device],
    *,
    strategy: Literal["jit", "pmap"],
    batch_size: int,
    steps_per_call: int,
) -> Plan:
    """Compiles a train step for devices that need not be there.

    Args:
        make_step: strategy -> the step of one device, as `make_train_step` makes it.
        state: shapes of the state.
        batch: name -> shape [B, ...] and dtype of a batch, of any size.
        wanted: the slice.
        devices: its devices, from `roofline.topology_devices`.
        strategy: how the devices share the work.
        batch_size: global batch size.
        steps_per_call: steps in one call of the compiled program.

    Returns:
        The plan, also if the program does not fit into memory.
    """
    batches = {
        name: jax.ShapeDtypeStruct((steps_per_call, batch_size, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in batch.items()
    }
    placement = _STRATEGIES[strategy](devices)
    parallel.check_batch_size(batch_size, placement)
    cost = refusal = None
    try:
        cost = roofline.compile_step(make_step, placement, state, batches)
    except roofline.OutOfMemory as error:
        refusal = str(error)
    return Plan(
        slice=wanted,
        strategy=strategy,
        batch_size=batch_size,
        steps_per_call=steps_per_call,
        num_params=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        state_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
        cost=cost,
        refusal=refusal,
    )
