"""The verb `plan`: what an experiment would cost on TPUs, without any."""

import collections
import functools
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from gm_jax.errors import UserError
from gm_jax.files import write_text
from gm_jax.planning import roofline, tpus
from gm_jax.runner import config as config_lib
from gm_jax.runner.run import Run, assemble
from gm_jax.training import loop, parallel
from gm_jax.training.step import make_train_step

if TYPE_CHECKING:
    from gm_jax.runner.cli import PlanArgs

_STRATEGIES = {"jit": parallel.jit, "pmap": parallel.pmap}


class Plan(NamedTuple):
    """One experiment on one slice.

    Attributes:
        slice: the chips.
        strategy: how they share the work.
        batch_size: global.
        steps_per_call: as the run would do them.
        num_params: of all players.
        state_bytes: of the whole state, unpadded.
        cost: what the compiler says; None where the program does not fit.
        refusal: the compiler's words where it does not.
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
        """Whether a chip's memory holds it, which the compiler decides."""
        return self.cost is not None

    @property
    def roofline(self) -> roofline.Roofline:
        """The times that bound a step."""
        return roofline.roofline(self.cost, self.slice)

    @property
    def examples_per_second(self) -> float:
        """Over all chips."""
        return self.batch_size / self.roofline.seconds

    @property
    def share_of_peak(self) -> float:
        """Of the FLOP/s that the chips' matrix units could do."""
        return self.roofline.compute / self.roofline.seconds


def run(module: str, config: Any, build: Callable, args: "PlanArgs") -> None:
    """Print what the experiment costs on each slice; write it as JSON and, of several slices, as a plot."""
    slices = [tpus.parse_slice(name) for name in args.topology]
    if not slices:
        raise UserError("which TPUs? For example: plan --topology v5e:4x4 v5e:16x16")
    batch_sizes = [global_batch(config.train.batch_size, args.batch_per_chip, wanted) for wanted in slices]
    for path in (args.json, args.plot):
        _make_room(path)  # compiling may take minutes: not to find out after them
    # The programs are compiled for TPUs and run nowhere: no accelerator of this machine is to be started.
    jax.config.update("jax_platforms", "cpu")
    devices = [roofline.topology_devices(wanted) for wanted in slices]
    assembled = assemble(config, build, Path())
    plans = []
    for wanted, each, batch_size in zip(slices, devices, batch_sizes, strict=True):
        print(f"compiling for {wanted.name} ...", file=sys.stderr)
        plans.append(make_plan(assembled, wanted, each, batch_size))
    if args.markdown:
        print(markdown(module, plans))
    else:
        print(f"{module} on {assembled.spec.name}, one step and one chip unless said otherwise\n")
        print(table(plans))
        print("\n" + "\n".join(notes(plans, num_examples=len(assembled.splits["train"]["x"]))))
    if args.json is not None:
        write_text(args.json, json.dumps(report(module, config, plans), indent=1) + "\n")
        print(f"{args.json}: the same as JSON", file=sys.stderr)
    if len(plans) > 1:
        draw(args.plot, plans)
        print(f"{args.plot}: how it grows with the number of chips", file=sys.stderr)


def global_batch(batch_size: int, batch_per_chip: int | None, wanted: tpus.Slice) -> int:
    """Examples a step over all chips: so many on each where that is said, or else the configuration's.

    Raises:
        UserError: the chips cannot share it out evenly.
    """
    if batch_per_chip is not None:
        return batch_per_chip * wanted.num_chips
    if batch_size % wanted.num_chips:
        raise UserError(
            f"a batch of {batch_size} cannot be shared out among the {wanted.num_chips} chips of {wanted.name}:\n"
            f"choose a --train.batch-size that is a multiple of {wanted.num_chips}, or give --batch-per-chip."
        )
    return batch_size


def make_plan(run: Run, wanted: tpus.Slice, devices: Sequence[jax.Device], batch_size: int) -> Plan:
    """Compile the train step that a run would take, for devices that need not be there."""
    train = run.config.train
    schedule = loop.make_schedule(
        num_steps=train.steps,
        steps_per_call=train.steps_per_call,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
    )

    def make_step(axis_name: str | None):
        return make_train_step(
            run.experiment.model,
            run.experiment.optimizers,
            seed=train.seed,
            ema_decay=train.ema_decay or None,
            axis_name=axis_name,
        )

    state = run.abstract_state()
    batches = {
        name: jax.ShapeDtypeStruct((schedule.steps_per_call, batch_size, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in run.splits["train"].items()
    }
    strategy = _STRATEGIES[train.parallel](devices)
    parallel.check_batch_size(batch_size, strategy)
    cost = refusal = None
    try:
        cost = roofline.compile_step(make_step, strategy, state, batches)
    except roofline.OutOfMemory as error:
        refusal = str(error)
    return Plan(
        slice=wanted,
        strategy=train.parallel,
        batch_size=batch_size,
        steps_per_call=schedule.steps_per_call,
        num_params=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        state_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
        cost=cost,
        refusal=refusal,
    )


def table(plans: Sequence[Plan]) -> str:
    """A column for every plan."""
    kinds = sorted({"all-reduce"}.union(*(plan.cost.collectives for plan in plans if plan.cost)))
    rows = [("", *(plan.slice.name for plan in plans))]
    rows += [(label, *map(value, plans)) for label, value in _SIZE.items()]
    known = _MEMORY | _WORK | {kind: functools.partial(_traffic, kind=kind) for kind in kinds} | _TIME
    rows += [(label, *("-" if plan.cost is None else value(plan) for plan in plans)) for label, value in known.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown(module: str, plans: Sequence[Plan]) -> str:
    """A row for every plan, and the heads of its columns."""
    name = f"`{module.rpartition('.')[2]}`"
    rows = [tuple(_COLUMNS), ("---",) * len(_COLUMNS)]
    rows += [(name, *(cell(plan) for cell in _COLUMNS.values() if cell is not None)) for plan in plans]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def notes(plans: Sequence[Plan], *, num_examples: int) -> list[str]:
    """What the numbers rest on, and what they leave out."""
    lines = [
        "Time is a roofline: the largest of the three, without latency of messages, dispatch and input, so too short;",
        "memory's is of all bytes that operations touch, so too long where a small net's stay on chip. Compute's is of",
        "matrix products, whose peak is in bfloat16, in which TPUs multiply float32 too unless told otherwise.",
    ]
    lines += [f"{plan.slice.name} does not fit: {plan.refusal}" for plan in plans if plan.refusal]
    costs = [plan.cost for plan in plans if plan.cost is not None]
    if not all(cost.donated for cost in costs):
        lines.append("The state is not donated whole: parts of the old and the new lie side by side.")
    loops = next((cost.inner_loops for cost in costs if cost.inner_loops), ())
    if loops:
        lengths = ", ".join(f"{n} of {trips or '?'} turns" for trips, n in collections.Counter(loops).items())
        lines.append(f"Loops within the step, {lengths}: bytes count each body once, and memory's time with them.")
    largest = max(plan.batch_size for plan in plans)
    if largest > num_examples:
        lines.append(f"Training refuses a batch of {largest:,}: these data have {num_examples:,} examples to train on.")
    sources = {plan.slice.chip.name: plan.slice.chip.source for plan in plans}
    return lines + [f"{name}: {source}" for name, source in sources.items()]


def report(module: str, config: Any, plans: Sequence[Plan]) -> dict[str, Any]:
    """Everything as JSON values: bytes, FLOPs, seconds, examples."""
    return {"experiment": module, "config": config_lib.to_dict(config), "plans": [_record(plan) for plan in plans]}


def draw(path: Path, plans: Sequence[Plan]) -> None:
    """Write a PNG of examples per second, and of what a step's time is made of, over the number of chips."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4))
    speed, times = figure.subplots(1, 2)
    known = sorted((plan for plan in plans if plan.cost is not None), key=lambda plan: plan.slice.num_chips)
    for kind in {plan.slice.chip.name: None for plan in known}:
        mine = [plan for plan in known if plan.slice.chip.name == kind]
        num_chips = [plan.slice.num_chips for plan in mine]
        (line,) = speed.plot(num_chips, [plan.examples_per_second for plan in mine], marker="o", label=kind)
        for name, style in zip(roofline.Roofline._fields, ("-", "--", ":"), strict=True):
            # A logarithmic axis has no place for the interconnect of a single chip.
            microseconds = [getattr(plan.roofline, name) * 1e6 or math.nan for plan in mine]
            times.plot(num_chips, microseconds, style, marker="o", ms=3, color=line.get_color(), label=f"{kind} {name}")
    for axes, label in ((speed, "examples per second"), (times, "microseconds a step")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("chips")
        axes.set_ylabel(label)
        axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _record(plan: Plan) -> dict[str, Any]:
    record = {
        "topology": plan.slice.name,
        "chips": plan.slice.num_chips,
        "chip": {
            name: value for name, value in plan.slice.chip._asdict().items() if isinstance(value, (str, int, float))
        },
        "strategy": plan.strategy,
        "batch_size": plan.batch_size,
        "batch_per_chip": plan.batch_size // plan.slice.num_chips,
        "steps_per_call": plan.steps_per_call,
        "parameters": plan.num_params,
        "state_bytes": plan.state_bytes,
        "fits": plan.fits,
        "refusal": plan.refusal,
    }
    if plan.cost is None:
        return record
    return record | {
        "memory": {**plan.cost.memory._asdict(), "total": plan.cost.memory.total},
        "donated": plan.cost.donated,
        "matrix_flops": plan.cost.matrix_flops,
        "other_ops": plan.cost.other_ops,
        "bytes_accessed": plan.cost.bytes_accessed,
        "collectives": {kind: traffic._asdict() for kind, traffic in plan.cost.collectives.items()},
        "inner_loops": list(plan.cost.inner_loops),
        "seconds": {**plan.roofline._asdict(), "step": plan.roofline.seconds},
        "bound": plan.roofline.bound,
        "examples_per_second": plan.examples_per_second,
        "share_of_peak": plan.share_of_peak,
        "compile_seconds": plan.cost.compile_seconds,
    }


def _make_room(path: Path | None) -> None:
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"cannot write {path}: {path.parent} is no folder.") from None


def _traffic(plan: Plan, kind: str) -> str:
    traffic = plan.cost.collectives.get(kind)
    return "none" if traffic is None else f"{traffic.count:g} of {_si(traffic.num_bytes, 'B')}"


def _others(plan: Plan) -> str:
    kinds = [kind for kind in plan.cost.collectives if kind != "all-reduce"]
    return ", ".join(f"{kind}: {_traffic(plan, kind)}" for kind in kinds) or "none"


def _at_least(plan: Plan, text: str) -> str:
    """What bytes tell, where loops make them too few."""
    return f"at least {text}" if plan.cost.inner_loops else text


def _at_most(plan: Plan, text: str) -> str:
    return f"at most {text}" if plan.cost.inner_loops else text


def _fits(plan: Plan) -> str:
    return f"{'yes' if plan.fits else 'NO'}, {plan.cost.memory.total / plan.slice.chip.hbm_bytes:.1%}"


def _step(plan: Plan) -> str:
    # Bytes that are too few matter only where nothing else takes longer: a bound from below either way.
    return _at_least(plan, _si(plan.roofline.seconds, "s"))


def _known(cell: Callable[[Plan], str]) -> Callable[[Plan], str]:
    return lambda plan: "does not fit" if plan.cost is None else cell(plan)


def _si(value: float, unit: str) -> str:
    """Four digits and a power of 1,000: "508.7 MFLOP"; of seconds, from microseconds up."""
    prefixes = ["", "k", "M", "G", "T"]
    if unit == "s":
        value, prefixes = value * 1e6, ["u", "m", *prefixes]
    while abs(value) >= 999.95 and len(prefixes) > 1:
        value, prefixes = value / 1000.0, prefixes[1:]
    return f"{value:.4g} {prefixes[0]}{unit}"


# Label -> the cell of a plan, in the order of the table.
_SIZE = {
    "chips": lambda plan: f"{plan.slice.num_chips:,}",
    "parallel": lambda plan: plan.strategy,
    "batch, all chips": lambda plan: f"{plan.batch_size:,}",
    "batch, a chip": lambda plan: f"{plan.batch_size // plan.slice.num_chips:,}",
    "parameters": lambda plan: f"{plan.num_params:,}",
    "HBM": lambda plan: f"{plan.slice.chip.hbm_bytes / 2**30:g} GiB",
}
_MEMORY = {
    "arguments": lambda plan: _si(plan.cost.memory.arguments, "B"),
    "outputs": lambda plan: _si(plan.cost.memory.outputs, "B"),
    "  in place (donated)": lambda plan: _si(plan.cost.memory.aliased, "B"),
    "temporaries": lambda plan: _si(plan.cost.memory.temporaries, "B"),
    "program": lambda plan: _si(plan.cost.memory.program, "B"),
    "fits, share of HBM": _fits,
}
_WORK = {
    "matrix products": lambda plan: _si(plan.cost.matrix_flops, "FLOP"),
    "other arithmetic": lambda plan: _si(plan.cost.other_ops, "op"),
    "bytes accessed": lambda plan: _at_least(plan, _si(plan.cost.bytes_accessed, "B")),
}
_TIME = {
    "time, compute": lambda plan: _si(plan.roofline.compute, "s"),
    "time, memory": lambda plan: _at_least(plan, _si(plan.roofline.memory, "s")),
    "time, interconnect": lambda plan: _si(plan.roofline.interconnect, "s"),
    "bound by": lambda plan: plan.roofline.bound,
    "step": _step,
    "examples/s": lambda plan: _at_most(plan, f"{plan.examples_per_second:,.0f}"),
    "share of peak": lambda plan: _at_most(plan, f"{plan.share_of_peak:.1%}") if plan.cost.matrix_flops else "0%",
    "compiled here in": lambda plan: f"{plan.cost.compile_seconds:.1f} s",
}

# Head of a column -> the cell of a plan; the first is the experiment's name.
_COLUMNS = {
    "experiment": None,
    "topology": lambda plan: plan.slice.name,
    "chips": lambda plan: f"{plan.slice.num_chips:,}",
    "memory": _known(lambda plan: _si(plan.cost.memory.total, "B")),
    "matrix products": _known(_WORK["matrix products"]),
    "other arithmetic": _known(_WORK["other arithmetic"]),
    "all-reduce": _known(functools.partial(_traffic, kind="all-reduce")),
    "other collectives": _known(_others),
    "step, bound by": _known(lambda plan: f"{_step(plan)}, {plan.roofline.bound}"),
    "share of peak": _known(_TIME["share of peak"]),
}
