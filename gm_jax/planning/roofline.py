"""What a train step costs on TPUs that are not there.

The step is compiled ahead of time for the devices of a topology, by the compiler that TPUs run (libtpu), from shapes
alone. What the compiler says of the program, and what the chips' documents say of the chips, give the roofline of a
step's time,

    t = max( FLOPs / peak,   bytes accessed / HBM bandwidth,   bytes sent / interconnect bandwidth )              (1)

with all numbers per chip, and FLOPs those of matrix products, whose peak it is; no peak is documented of the units that
do the rest. A chip of n sends, for collectives whose result is b bytes on each,

    all-reduce 2 b (n-1)/n,   all-gather and all-to-all b (n-1)/n,   reduce-scatter b (n-1),   others b            (2)

Not in it are the latency of messages, dispatch, and input from the host: a small net on many chips is slower than (1).
The compiler's bytes are those that its operations read and write, of the body of a loop within the step once; of a
small net part of them stays in the chip's own memory and never meets the HBM, whose time is then less than (1) says.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from gm_jax.errors import UserError
from gm_jax.planning import flops, hlo
from gm_jax.planning.tpus import Slice
from gm_jax.training import parallel
from gm_jax.training.step import TrainStep
from gm_jax.types import PyTree

# This process compiles for TPUs and uses none: libtpu need not ask which TPU host it runs on, in five lines of
# complaint where it is none, nor claim that host's chips, which one process at a time may have.
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
        aliased: what of the outputs overwrites the arguments.
        temporaries: what lives between them.
        program: the instructions.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    program: int

    @property
    def total(self) -> int:
        """All of it, counting what is overwritten once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.program


class Cost(NamedTuple):
    """What the compiler says of one call's program, divided by its steps where it is work.

    Attributes:
        memory: on one chip.
        matrix_flops: of matrix products and convolutions, a step and chip; loops count as often as they turn.
        other_ops: all other arithmetic, a step and chip.
        bytes_accessed: a step and chip.
        collectives: a step, by kind; bytes of the results on one chip.
        donated: whether every leaf of the state is overwritten by its successor.
        inner_loops: how often the bodies of the loops within a step run, None where that is not known. The compiler
            counts the bytes of each body once: with loops, there are more. So is the arithmetic where it is None.
        compile_seconds: what compiling took, here.
    """

    memory: Memory
    matrix_flops: float
    other_ops: float
    bytes_accessed: float
    collectives: Mapping[str, hlo.Traffic]
    donated: bool
    inner_loops: tuple[int | None, ...]
    compile_seconds: float


class Roofline(NamedTuple):
    """The three times of equation (1), in seconds."""

    compute: float
    memory: float
    interconnect: float

    @property
    def seconds(self) -> float:
        """The largest of them: the time of a step."""
        return max(self)

    @property
    def bound(self) -> str:
        """Which of the three it is."""
        return max(self._asdict(), key=self._asdict().get)


class OutOfMemory(Exception):
    """The compiler's own words on why a program does not fit."""


def topology_devices(wanted: Slice) -> list[jax.Device]:
    """The devices of a slice that need not be there, one a chip.

    Raises:
        UserError: there is no compiler for TPUs, or it knows no such slice.
    """
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError("planning for TPUs takes their compiler, libtpu: pip install -e '.[tpu]'")
    from jax.experimental import topologies

    for name, value in _COMPILE_ONLY.items():
        os.environ.setdefault(name, value)
    options = dict(wanted.chip.options)
    if wanted.num_chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=wanted.name, **options)
    except jax.errors.JaxRuntimeError as error:
        said = str(error).splitlines()[0].partition(": ")[2]
        raise UserError(f"{wanted.name}: {said}\nHosts have 2x2 chips: axes of even length work.") from None
    if len(topology.devices) != wanted.num_chips:
        raise UserError(f"{wanted.name}: libtpu makes {len(topology.devices)} devices of {wanted.num_chips} chips.")
    return list(topology.devices)


def compile_step(
    make_step: Callable[[str | None], TrainStep], strategy: parallel.Strategy, state: PyTree, batches: PyTree
) -> Cost:
    """Compile a train step for a strategy's devices, from shapes.

    Args:
        make_step: axis name -> the step of one device, as `make_train_step` makes it.
        strategy: where it is to run; its devices may be a topology's.
        state: shapes of the state.
        batches: shapes of the global batches of one call, [S, B, ...].

    Raises:
        OutOfMemory: the program does not fit into the devices' memory.
    """
    num_steps = jax.tree.leaves(batches)[0].shape[0]
    lowered = strategy.lower(make_step(strategy.axis_name), state, batches)
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(str(error).splitlines()[0].partition(": ")[2]) from None
    seconds = time.perf_counter() - start
    return _cost(compiled, num_steps, num_leaves=len(jax.tree.leaves(state)), compile_seconds=seconds)


def _cost(compiled: jax.stages.Compiled, num_steps: int, *, num_leaves: int, compile_seconds: float) -> Cost:
    stats, analysis = compiled.memory_analysis(), compiled.cost_analysis()
    program = hlo.parse(compiled.as_text())
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
        # The compiler counts the body of the loop over steps once: these are of one step already.
        bytes_accessed=analysis["bytes accessed"],
        collectives={
            kind: hlo.Traffic(traffic.count / num_steps, traffic.num_bytes / num_steps)
            for kind, traffic in sorted(program.collectives().items())
        },
        donated=program.num_aliased == num_leaves,
        inner_loops=tuple(loops),
        compile_seconds=compile_seconds,
    )


def roofline(cost: Cost, wanted: Slice) -> Roofline:
    """Equation (1) for a step on a slice."""
    sent = sum(bytes_sent(kind, traffic.num_bytes, wanted.num_chips) for kind, traffic in cost.collectives.items())
    return Roofline(
        compute=cost.matrix_flops / wanted.chip.peak_flops,
        memory=cost.bytes_accessed / wanted.chip.hbm_bandwidth,
        interconnect=sent / wanted.ici_bandwidth if sent else 0.0,
    )


def bytes_sent(kind: str, num_bytes: float, num_chips: int) -> float:
    """Equation (2): what each of n chips sends for collectives whose results on a chip are so many bytes."""
    rest = num_chips - 1
    factors = {
        "all-reduce": 2 * rest / num_chips,
        "all-gather": rest / num_chips,
        "all-to-all": rest / num_chips,
        "reduce-scatter": float(rest),
    }
    return num_bytes * factors.get(kind, 1.0 if rest else 0.0)
