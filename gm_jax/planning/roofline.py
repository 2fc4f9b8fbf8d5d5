"""Compiles a train step for a TPU topology, without any TPU, and bounds its time by the roofline.

libtpu, the compiler of TPUs, compiles the step ahead of time for the devices of a topology, from shapes alone. The
compiler's analysis of the program and the documented numbers of the chips give the roofline of a step's time,

    t = max( FLOPs / peak,   bytes of HBM / its bandwidth,   bytes sent / interconnect bandwidth )                (1)

per chip. FLOPs are those of matrix products, because the documented peak holds for these alone. Bytes are those that
are read from HBM and written to it, not those that stay in the memory of the core. One of n chips sends,
for collectives whose result is b bytes on each chip,

    all-reduce 2 b (n-1)/n,   all-gather and all-to-all b (n-1)/n,   reduce-scatter b (n-1),   others b            (2)

(1) leaves out the work of the vector unit, message latency, dispatch and input from the host: it is a lower bound, and
a program of many small operations takes much longer. It counts the larger branch of a conditional: of players that
take turns, and of stages, it bounds a step that updates them all. The compiler also estimates the cycles of the core
for each operation. Their sum includes the vector unit, and leaves out sorts, gathers, collectives, custom calls and
asynchronous copies. The clock is not documented, so the sum compares programs for one kind of chip. It is not a time.
"""

import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
from jax.experimental import topologies

from gm_jax.errors import UserError
from gm_jax.planning import flops, hbm, hlo
from gm_jax.planning.tpus import Slice
from gm_jax.training import parallel
from gm_jax.training.step import TrainStep
from gm_jax.types import Device, PyTree

# This process compiles for TPUs and uses none: libtpu must not look for a TPU host, which prints five lines if there is
# none, nor claim that host's chips, which only one process may hold.
_COMPILE_ONLY = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Memory(NamedTuple):
    """Bytes on one chip, with the padding of its layouts.

    Attributes:
        arguments: the state and the chip's part of the batches.
        outputs: the new state and the metrics.
        aliased: the outputs that overwrite arguments.
        temporaries: intermediate results.
        program: the instructions.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    program: int

    @property
    def total(self) -> int:
        """The sum, which counts overwritten memory once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.program


class Cost(NamedTuple):
    """What the compiled program of one call does; work is per step and chip.

    Attributes:
        memory: bytes on one chip.
        matrix_flops: FLOPs of matrix products and convolutions; loops count once per iteration.
        other_ops: all other arithmetic.
        hbm_bytes: bytes read from HBM and written to it.
        cycles: of the core, the sum of the compiler's estimates for each operation.
        collectives: kind -> number, and bytes of the results on one chip.
        donated: whether every leaf of the state is overwritten by its successor.
        operations: started by the core, copies and collectives too; a fusion is one.
        conditionals: how many there are. Each counts as its larger branch, also for players and stages that are
            not updated at every step: all counts are then those of a step that updates all.
        inner_loops: numbers of iterations of the loops within a step, None if unknown. The work of a loop counts once
            if its number is unknown: all counts are then too low.
        compile_seconds: time that compiling took on this machine.
    """

    memory: Memory
    matrix_flops: float
    other_ops: float
    hbm_bytes: float
    cycles: float
    collectives: Mapping[str, hlo.Traffic]
    donated: bool
    operations: float
    conditionals: int
    inner_loops: tuple[int | None, ...]
    compile_seconds: float

    @property
    def is_complete(self) -> bool:
        """Whether the numbers of iterations of all loops are known, so that no count is too low."""
        return None not in self.inner_loops


class Roofline(NamedTuple):
    """The three times of equation (1), in seconds."""

    compute: float
    memory: float
    interconnect: float

    @property
    def seconds(self) -> float:
        """The largest of the three: the time of a step."""
        return max(self)

    @property
    def bound(self) -> str:
        """The name of the largest."""
        times = self._asdict()
        return max(times, key=times.__getitem__)


class OutOfMemory(Exception):
    """A program does not fit into the devices' memory; the message is the compiler's."""


def topology_devices(wanted: Slice) -> list[Device]:
    """Describes the devices of a slice, one per chip; no TPU is needed.

    Raises:
        UserError: the compiler for TPUs is not installed, or does not know the slice.
    """
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError("libtpu, the compiler for TPUs, is not installed: pip install -e '.[tpu]'")
    for name, value in _COMPILE_ONLY.items():
        os.environ.setdefault(name, value)
    options = dict(wanted.chip.options)
    if wanted.num_chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=wanted.name, **options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].partition(": ")[2]
        raise UserError(f"{wanted.name}: {reason}\nA host has 2x2 chips: choose axes of even length.") from None
    if len(topology.devices) != wanted.num_chips:
        raise UserError(
            f"{wanted.name}: libtpu has {len(topology.devices)} devices for {wanted.num_chips} chips; "
            "choose another topology."
        )
    return list(topology.devices)


def compile_step(
    make_step: Callable[[parallel.Strategy], TrainStep], strategy: parallel.Strategy, state: PyTree, batches: PyTree
) -> Cost:
    """Compiles a train step for a strategy's devices, from shapes.

    Args:
        make_step: strategy -> the step of one device, as `make_train_step` makes it.
        strategy: where the step runs; its devices may be those of a topology.
        state: shapes of the state.
        batches: shapes of the global batches of one call, [S, B, ...].

    Raises:
        OutOfMemory: the program does not fit into the devices' memory.
    """
    num_steps = jax.tree.leaves(batches)[0].shape[0]
    lowered = strategy.lower(make_step(strategy), state, batches)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            # The compilation cache stores programs for a topology but cannot read them: jax warns, then compiles.
            warnings.filterwarnings("ignore", "Error reading persistent compilation cache")
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(str(error).splitlines()[0].partition(": ")[2]) from None
    seconds = time.perf_counter() - start
    return _cost(compiled, num_steps, num_leaves=len(jax.tree.leaves(state)), compile_seconds=seconds)


def _cost(compiled: jax.stages.Compiled, num_steps: int, *, num_leaves: int, compile_seconds: float) -> Cost:
    stats, text = compiled.memory_analysis(), compiled.as_text()
    if stats is None or text is None:
        raise RuntimeError("this compiler does not report the memory and the text of a program")
    program = hlo.parse(text)
    work, loops = flops.count(program), program.loops()
    if num_steps > 1 and num_steps in loops:
        loops.remove(num_steps)  # the loop over the steps of a call; the outermost comes first
    return Cost(
        memory=Memory(
            arguments=stats.argument_size_in_bytes,
            outputs=stats.output_size_in_bytes,
            aliased=stats.alias_size_in_bytes,
            temporaries=stats.temp_size_in_bytes,
            program=stats.generated_code_size_in_bytes,
        ),
        matrix_flops=work.matrix_flops / num_steps,
        other_ops=work.other_ops / num_steps,
        hbm_bytes=hbm.hbm_bytes(program) / num_steps,
        cycles=program.cycles() / num_steps,
        collectives={
            kind: hlo.Traffic(of_kind.count / num_steps, of_kind.num_bytes / num_steps)
            for kind, of_kind in sorted(program.collectives().items())
        },
        donated=program.num_aliased == num_leaves,
        operations=program.operations() / num_steps,
        conditionals=program.conditionals(),
        inner_loops=tuple(loops),
        compile_seconds=compile_seconds,
    )


def roofline(cost: Cost, wanted: Slice) -> Roofline:
    """Computes equation (1) for a step on a slice."""
    sent = sum(bytes_sent(kind, found.num_bytes, wanted.num_chips) for kind, found in cost.collectives.items())
    return Roofline(
        compute=cost.matrix_flops / wanted.chip.peak_flops,
        memory=cost.hbm_bytes / wanted.chip.hbm_bandwidth,
        interconnect=sent / wanted.ici_bandwidth if sent else 0.0,
    )


def bytes_sent(kind: str, num_bytes: float, num_chips: int) -> float:
    """Computes equation (2): the bytes that each of `num_chips` sends for results of `num_bytes` on each."""
    rest = num_chips - 1
    factors = {
        "all-reduce": 2 * rest / num_chips,
        "all-gather": rest / num_chips,
        "all-to-all": rest / num_chips,
        "reduce-scatter": float(rest),
    }
    return num_bytes * factors.get(kind, 1.0 if rest else 0.0)
