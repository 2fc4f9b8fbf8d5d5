"""Formats plans: a table, Markdown, notes, JSON and a picture."""

import collections
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gm_jax.errors import SMALLER_STEP
from gm_jax.files import replacing
from gm_jax.planning import roofline
from gm_jax.planning.plan import Plan

LARGER_BRANCHES = ", larger branches"  # in the cell of a step with conditionals


def table(plans: Sequence[Plan]) -> str:
    """Formats plans as a table with a column for each."""
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
    """Formats plans as a Markdown table with a row for each."""
    name = f"`{module.rpartition('.')[2]}`"
    rows = [tuple(_COLUMNS), ("---",) * len(_COLUMNS)]
    rows += [(name, *(cell(plan) for cell in _COLUMNS.values() if cell is not None)) for plan in plans]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def notes(plans: Sequence[Plan], *, num_examples: int | None) -> list[str]:
    """Lists what the numbers leave out, what does not fit, and the sources; `num_examples` is None if not known."""
    lines = [
        "The step is a roofline, the largest of three times. It leaves out the vector unit, message latency, dispatch",
        "and input, so it is a lower bound. The compiler's estimate of cycles includes the vector unit, but not",
        "collectives or asynchronous copies. The compute bound counts matrix products at the bfloat16 peak, which TPUs",
        "also use for float32 by default.",
    ]
    refused = [f"{plan.slice.name} does not fit: {plan.refusal}" for plan in plans if plan.refusal]
    lines += [*refused, SMALLER_STEP] if refused else []
    costs = [plan.cost for plan in plans if plan.cost is not None]
    if not all(cost.donated for cost in costs):
        lines.append("The state is not fully donated: parts of the old and the new state are in memory together.")
    loops = next((cost.inner_loops for cost in costs if not cost.is_complete), ())
    if loops:
        lengths = ", ".join(f"{n} with {trips or '?'} iterations" for trips, n in collections.Counter(loops).items())
        lines.append(f"Loops within the step ({lengths}): what they do counts once where the number is unknown.")
    if any(cost.conditionals for cost in costs):
        lines.append("Conditionals count as their larger branch: a player or a stage is not updated at every step,")
        lines.append("and a step that updates all of them is bounded here.")
    largest = max(plan.batch_size for plan in plans)
    if num_examples is not None and largest > num_examples:
        lines.append(f"Training would refuse a batch of {largest:,}: there are {num_examples:,} training examples.")
    sources = {plan.slice.chip.name: plan.slice.chip.source for plan in plans}
    return lines + [f"{name}: {source}" for name, source in sources.items()]


def as_json(module: str, config: Mapping[str, Any], plans: Sequence[Plan]) -> dict[str, Any]:
    """Converts plans to JSON values in bytes, FLOPs, seconds and examples; `config` is the configuration as a dict."""
    return {"experiment": module, "config": dict(config), "plans": [_record(plan) for plan in plans]}


def draw(path: Path, plans: Sequence[Plan]) -> None:
    """Writes a PNG: examples per second, and the three bounds on a step's time, against the number of chips."""
    figure = Figure(figsize=(9, 4))
    speed, times = figure.subplots(1, 2)
    known = sorted((plan for plan in plans if plan.cost is not None), key=lambda plan: plan.slice.num_chips)
    for kind in {plan.slice.chip.name: None for plan in known}:
        same = [plan for plan in known if plan.slice.chip.name == kind]
        num_chips = [plan.slice.num_chips for plan in same]
        (line,) = speed.plot(num_chips, [plan.examples_per_second for plan in same], marker="o", label=kind)
        for name, style in zip(roofline.Roofline._fields, ("-", "--", ":"), strict=True):
            # A logarithmic axis cannot show the interconnect of a single chip, which is 0.
            microseconds = [getattr(plan.roofline, name) * 1e6 or math.nan for plan in same]
            times.plot(num_chips, microseconds, style, marker="o", ms=3, color=line.get_color(), label=f"{kind} {name}")
    for axes, label in ((speed, "examples per second"), (times, "microseconds per step")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("chips")
        axes.set_ylabel(label)
        axes.legend(fontsize="small")
    figure.tight_layout()
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)


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
        "hbm_bytes": plan.cost.hbm_bytes,
        "cycles": plan.cost.cycles,
        "collectives": {kind: traffic._asdict() for kind, traffic in plan.cost.collectives.items()},
        "operations": plan.cost.operations,
        "conditionals": plan.cost.conditionals,
        "inner_loops": list(plan.cost.inner_loops),
        "seconds": {**plan.roofline._asdict(), "step": plan.roofline.seconds},
        "bound": plan.roofline.bound,
        "examples_per_second": plan.examples_per_second,
        "share_of_peak": plan.share_of_peak,
        "compile_seconds": plan.cost.compile_seconds,
    }


def _traffic(plan: Plan, kind: str) -> str:
    traffic = plan.known_cost.collectives.get(kind)
    return "none" if traffic is None else _at_least(plan, f"{traffic.count:g} of {with_prefix(traffic.num_bytes, 'B')}")


def _bounded_step(plan: Plan) -> str:
    branches = LARGER_BRANCHES if plan.known_cost.conditionals else ""
    return f"{with_prefix(plan.roofline.seconds, 's')}, {plan.roofline.bound}{branches}"


def _others(plan: Plan) -> str:
    kinds = [kind for kind in plan.known_cost.collectives if kind != "all-reduce"]
    return ", ".join(f"{kind}: {_traffic(plan, kind)}" for kind in kinds) or "none"


def _at_least(plan: Plan, text: str) -> str:
    """Marks a lower bound: a loop of an unknown number of iterations counts once."""
    return text if plan.known_cost.is_complete else f"at least {text}"


def _fits(plan: Plan) -> str:
    return f"{'yes' if plan.fits else 'NO'}, {plan.known_cost.memory.total / plan.slice.chip.hbm_bytes:.1%}"


def _known(cell: Callable[[Plan], str]) -> Callable[[Plan], str]:
    return lambda plan: "does not fit" if plan.cost is None else cell(plan)


def with_prefix(value: float, unit: str) -> str:
    """Formats a number with four digits and a power of 1,000: "508.7 MFLOP"; seconds start at microseconds."""
    prefixes = ["", "k", "M", "G", "T"]
    if unit == "s":
        value, prefixes = value * 1e6, ["u", "m", *prefixes]
    while abs(value) >= 999.95 and len(prefixes) > 1:
        value, prefixes = value / 1000.0, prefixes[1:]
    return f"{value:.4g} {prefixes[0]}{unit}".rstrip()


# Label -> the cell of a plan, in the order of the table.
_SIZE = {
    "chips": lambda plan: f"{plan.slice.num_chips:,}",
    "parallel": lambda plan: plan.strategy,
    "batch, all chips": lambda plan: f"{plan.batch_size:,}",
    "batch, per chip": lambda plan: f"{plan.batch_size // plan.slice.num_chips:,}",
    "parameters": lambda plan: f"{plan.num_params:,}",
    "HBM": lambda plan: f"{plan.slice.chip.hbm_bytes / 2**30:g} GiB",
}
_MEMORY = {
    "arguments": lambda plan: with_prefix(plan.known_cost.memory.arguments, "B"),
    "outputs": lambda plan: with_prefix(plan.known_cost.memory.outputs, "B"),
    "  in place (donated)": lambda plan: with_prefix(plan.known_cost.memory.aliased, "B"),
    "temporaries": lambda plan: with_prefix(plan.known_cost.memory.temporaries, "B"),
    "program": lambda plan: with_prefix(plan.known_cost.memory.program, "B"),
    "fits, share of HBM": _fits,
}
_WORK = {
    "matrix products": lambda plan: _at_least(plan, with_prefix(plan.known_cost.matrix_flops, "FLOP")),
    "other arithmetic": lambda plan: _at_least(plan, with_prefix(plan.known_cost.other_ops, "op")),
    "bytes to and from HBM": lambda plan: _at_least(plan, with_prefix(plan.known_cost.hbm_bytes, "B")),
    "operations of the core": lambda plan: _at_least(plan, f"{plan.known_cost.operations:,.0f}"),
    "cycles, estimated": lambda plan: _at_least(plan, with_prefix(plan.known_cost.cycles, "")),
}
_TIME = {
    "time, compute": lambda plan: _at_least(plan, with_prefix(plan.roofline.compute, "s")),
    "time, memory": lambda plan: _at_least(plan, with_prefix(plan.roofline.memory, "s")),
    "time, interconnect": lambda plan: _at_least(plan, with_prefix(plan.roofline.interconnect, "s")),
    "bound by": lambda plan: plan.roofline.bound,
    "step, at least": lambda plan: with_prefix(plan.roofline.seconds, "s"),
    "examples/s, at most": lambda plan: f"{plan.examples_per_second:,.0f}",
    "share of peak, at most": lambda plan: f"{plan.share_of_peak:.1%}" if plan.known_cost.is_complete else "unknown",
    "compiled here in": lambda plan: f"{plan.known_cost.compile_seconds:.1f} s",
}

# Title of a column -> the cell of a plan; the first column is the experiment's name.
_COLUMNS = {
    "experiment": None,
    "topology": lambda plan: plan.slice.name,
    "chips": lambda plan: f"{plan.slice.num_chips:,}",
    "memory": _known(lambda plan: with_prefix(plan.known_cost.memory.total, "B")),
    "matrix products": _known(_WORK["matrix products"]),
    "other arithmetic": _known(_WORK["other arithmetic"]),
    "all-reduce": _known(functools.partial(_traffic, kind="all-reduce")),
    "other collectives": _known(_others),
    "step at least, bound by": _known(_bounded_step),
    "share of peak, at most": _known(_TIME["share of peak, at most"]),
    "cycles, estimated": _known(_WORK["cycles, estimated"]),
}
