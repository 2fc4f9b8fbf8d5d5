"""How fast autoregressive models sample: with cached work, compared with a full forward pass for every position.

    pip install -e '.[benchmarks]'            # PyTorch
    python -m benchmarks.sampling             # about twenty minutes on an idle machine
    python -m benchmarks.sampling --only made wavenet

Three samplers run in turns, for the same network with the same parameters:

    cached     `samplers.autoregressive.sample`: all positions in one compiled program
    naive      `samplers.autoregressive.sample_naive`: our full forward pass per position, in one compiled program
    PyTorch    the plain loop of `torch_autoregressive`, a full forward pass per position. NADE uses its recursion in
               PyTorch too: both sides then do the same work, and there is no goal

Every pass of the naive loops costs the same. Only the last positions are timed, and their time is scaled up to all; the
number of timed positions is printed. Before anything is timed, PyTorch's outputs must equal ours, and the draws of the
cached sampler those of the naive one.

The growth table doubles the side of the image for gated PixelCNN. The naive work grows with the fourth power of the
side, the cached work with the second.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from benchmarks import command, timing, torch_parity
from benchmarks.torch_parity import Pair

if TYPE_CHECKING:
    from gm_jax.types import Array, Key

Rounds = Sequence[Mapping[str, timing.Sample]]
Draw = Callable[..., "Array"]  # (params, key, prefix [n, i]) -> levels [n, D]

GROWTH_SIDES = (28, 56, 112)
COMPARED_POSITIONS = 32


class Work(NamedTuple):
    """A network to sample from, with its goals.

    Attributes:
        title: description of the network.
        pair: the network.
        n: number of samples drawn together.
        naive_positions: positions in one unit of work of our naive loop.
        torch_positions: positions in one unit of work of PyTorch's loop.
        times_naive: goal for the speed relative to our naive loop; None for no goal.
        times_torch: goal for the speed relative to PyTorch's loop; None for no goal.
    """

    title: str
    pair: Pair
    n: int
    naive_positions: int
    torch_positions: int
    times_naive: float | None = None
    times_torch: float | None = None


GATED_PIXELCNN = Work("gated PixelCNN, 8 x 64", torch_parity.GATED_PIXELCNN, 16, 4, 2, 200, 300)
WORKS = {
    "gated_pixelcnn": GATED_PIXELCNN,
    "pixelcnn": Work("PixelCNN, 7x7 + 8 blocks x 64", torch_parity.PIXELCNN, 16, 16, 16, 100, 150),
    "made": Work("MADE 784-500", torch_parity.MADE, 16, 784, 196, 50, 150),
    "nade": Work("NADE 500", torch_parity.NADE, 16, 16, 784),
    "wavenet": Work("WaveNet, 10 x 32/256", torch_parity.WAVENET, 16, 16, 4, 60, 300),
    "transformer": Work("transformer, 4 x 64, 4 heads", torch_parity.TRANSFORMER, 16, 2, 2, 100),
    "wavenet_one": Work("WaveNet, 10 x 32/256, one sequence", torch_parity.WAVENET, 1, 128, 32, 60, 300),
}
Name = Literal["gated_pixelcnn", "pixelcnn", "made", "nade", "wavenet", "transformer", "wavenet_one", "growth"]


@dataclasses.dataclass(frozen=True)
class Args(command.FlaggedArgs):
    """Time sampling in gm_jax, cached and naive, and in PyTorch."""

    rounds: int = 7
    """Number of clean rounds for each comparison; at most twice as many rounds are run."""
    only: tuple[Name, ...] = ()
    """What to time. Default: everything."""


def make_cached(pair: Pair, n: int, xla_flags: str) -> timing.Run:
    """Makes the cached sampler; a unit of work is n whole samples."""
    return _make_sampler(_cached, pair, n, 0, xla_flags)


def make_naive(pair: Pair, n: int, first: int, xla_flags: str) -> timing.Run:
    """Makes the naive sampler; a unit of work is the positions `first` ... D-1 of n samples."""
    return _make_sampler(_naive, pair, n, first, xla_flags)


def differing_draws(pair: Pair, n: int) -> int:
    """Counts the draws of the last positions, after random levels, that differ between cached and naive sampler."""
    import jax

    params, prefix = torch_parity.parameters(pair), torch_parity.levels(pair, n)[:, :-COMPARED_POSITIONS]
    cached, naive = (jax.jit(sampler(pair, n))(params, jax.random.key(2), prefix) for sampler in (_cached, _naive))
    return int(np.sum(np.asarray(cached) != np.asarray(naive)))


def _make_sampler(sampler: Callable[[Pair, int], Draw], pair: Pair, n: int, first: int, xla_flags: str) -> timing.Run:
    timing.add_xla_flags(xla_flags)
    import jax

    params = jax.device_put(torch_parity.parameters(pair))
    prefix = np.zeros((n, first), np.int32)
    draw = jax.jit(sampler(pair, n))
    key = jax.random.key(0)

    def run(calls: int) -> None:
        nonlocal key
        for _ in range(calls):
            key, draw_key = jax.random.split(key)
            draw(params, draw_key, prefix).block_until_ready()

    return run


def _cached(pair: Pair, n: int) -> Draw:
    from gm_jax.samplers import autoregressive as samplers

    network, output = torch_parity.network(pair), torch_parity.output(pair)

    def draw(params: Any, key: "Key", prefix: "Array") -> "Array":
        conditionals = network.conditionals(params, None, 0)
        return samplers.sample(conditionals, output.draw, key, n, pair.num_dims, prefix=prefix)

    return draw


def _naive(pair: Pair, n: int) -> Draw:
    from gm_jax.samplers import autoregressive as samplers

    network, output = torch_parity.network(pair), torch_parity.output(pair)

    def draw(params: Any, key: "Key", prefix: "Array") -> "Array":
        outputs_fn = lambda x: network.outputs(params, x, None, 0)  # noqa: E731
        return samplers.sample_naive(outputs_fn, output.draw, key, n, pair.num_dims, prefix=prefix)

    return draw


def check(work: Work) -> dict[str, float]:
    """Checks that all three samplers draw from the same model.

    Returns:
        Relative difference of PyTorch's outputs from ours.

    Raises:
        RuntimeError: it is too large, or the cached and the naive sampler draw different levels.
    """
    differences = torch_parity.check(work.pair, 4)
    if wrong := timing.in_own_process(differing_draws, work.pair, work.n):
        raise RuntimeError(f"{work.title}: cached and naive samplers differ in {wrong} draws")
    return differences


def against_naive_loops(work: Work, args: Args) -> dict[str, Any]:
    """Times the three samplers of one network: one row of the first table."""
    from benchmarks import torch_autoregressive

    pair, total, parity = work.pair, work.pair.num_dims, check(work)
    arrays = timing.in_own_process(torch_parity.initial_arrays, pair)
    theirs = (pair.name, dict(pair.sizes), arrays, work.n, total, total - work.torch_positions)
    cases = {
        "cached": timing.Case(make_cached, pair, work.n, args.experiment_flags),
        "naive": timing.Case(make_naive, pair, work.n, total - work.naive_positions, args.experiment_flags),
        "PyTorch": timing.Case(torch_autoregressive.make_sampler, *theirs),
    }
    rounds = timing.alternate(cases, rounds=args.rounds, seconds=args.seconds, title=f"{work.title}, {work.n} samples")
    return {"parity": parity, **network_row(work, rounds)}


def network_row(work: Work, rounds: Rounds) -> dict[str, Any]:
    """Makes a row of the first table from the timings of three samplers."""
    total, positions = work.pair.num_dims, {"naive": work.naive_positions, "PyTorch": work.torch_positions}
    seen = {name: positions_timed(rounds, name, count) for name, count in positions.items()}
    rounds = scaled(rounds, {name: total / count for name, count in positions.items()})
    ratios = {name: timing.ratio(rounds, over=name, under="cached") for name in positions}
    medians = {name: timing.median_seconds(rounds, name) for name in ("cached", *positions)}
    goals = {"naive": work.times_naive, "PyTorch": work.times_torch}
    return {
        "network": work.title,
        "samples": work.n,
        "seconds": medians,
        "ratios": {name: ratio._asdict() for name, ratio in ratios.items()},
        "positions": {"all": total, **seen},
        "cells": [
            work.title,
            str(work.n),
            *(timing.number(seconds, ".4g") for seconds in medians.values()),
            *(cell for name, ratio in ratios.items() for cell in (str(ratio), goal(ratio, goals[name]))),
            f"{seen['naive']}, {seen['PyTorch']} of {total}",
            ", ".join(ratio.cleanliness for ratio in ratios.values()),
        ],
        "rounds": rounds,
    }


def growth(args: Args) -> list[dict[str, Any]]:
    """Times gated PixelCNN, cached and naive, at each side: the rows of the second table."""
    rows: list[dict[str, Any]] = []
    work = GATED_PIXELCNN
    for side in GROWTH_SIDES:
        pair = work.pair._replace(sizes={**work.pair.sizes, "side": side})
        # The cost of a pass is proportional to the number of pixels, so fewer positions of a large image are timed.
        positions = max(1, work.naive_positions * work.pair.num_dims // pair.num_dims)
        cases = {
            "cached": timing.Case(make_cached, pair, work.n, args.experiment_flags),
            "naive": timing.Case(make_naive, pair, work.n, pair.num_dims - positions, args.experiment_flags),
        }
        title = f"{work.title}, side {side}"
        rounds = timing.alternate(cases, rounds=args.rounds, seconds=args.seconds, title=title)
        rows.append(growth_row(side, positions, rounds, rows[-1]["seconds"] if rows else {}))
    return rows


def growth_row(side: int, positions: int, rounds: Rounds, before: dict[str, float | None]) -> dict[str, Any]:
    """Makes a row of the second table; `before` holds the seconds of the side before."""
    total = side**2
    seen = positions_timed(rounds, "naive", positions)
    rounds = scaled(rounds, {"naive": total / positions})
    ratio = timing.ratio(rounds, over="naive", under="cached")
    medians = {name: timing.median_seconds(rounds, name) for name in ("cached", "naive")}
    cells = [(timing.number(now, ".4g"), times(now, before.get(name))) for name, now in medians.items()]
    return {
        "side": side,
        "seconds": medians,
        "ratio": ratio._asdict(),
        "positions": {"all": total, "naive": seen},
        "cells": [str(side), *itertools.chain(*cells), str(ratio), f"{seen} of {total}", ratio.cleanliness],
        "rounds": rounds,
    }


def scaled(rounds: Rounds, factors: Mapping[str, float]) -> Rounds:
    """Multiplies the seconds of some cases."""
    return [
        {name: sample._replace(seconds=sample.seconds * factors.get(name, 1)) for name, sample in samples.items()}
        for samples in rounds
    ]


def positions_timed(rounds: Rounds, name: str, positions: int) -> int:
    """Counts the positions that a case drew in all clean samples, `positions` per unit of work."""
    return positions * sum(samples[name].count for samples in rounds if samples[name].clean)


def goal(ratio: timing.Ratio, at_least: float | None) -> str:
    """Formats the verdict on a goal, or "-" if there is none."""
    return "-" if at_least is None else timing.verdict(ratio, at_least=at_least)


def times(now: float | None, before: float | None) -> str:
    """Formats a growth factor."""
    return "-" if now is None or before is None else f"x{now / before:.1f}"


def measure(args: Args) -> dict[str, Any]:
    """Measures what was chosen: all three samplers of each network, and the growth."""
    chosen = args.only or (*WORKS, "growth")
    return {
        "networks": [against_naive_loops(work, args) for name, work in WORKS.items() if name in chosen],
        "growth": growth(args) if "growth" in chosen else [],
    }


def report(results: dict[str, Any]) -> str:
    """Formats the results as Markdown."""
    parts = []
    if results["networks"]:
        header = ["network", "samples", "cached, s", "naive, s", "PyTorch, s", "times naive", "goal", "times PyTorch"]
        header += ["goal", "positions timed: naive, PyTorch", "clean"]
        worst = max(row["parity"]["outputs"] for row in results["networks"])
        parts += [
            "Seconds for all positions; medians of clean rounds (range). Naive loops: some positions, scaled up.",
            timing.table(header, [row["cells"] for row in results["networks"]]),
            f"Same parameters and input: PyTorch's outputs differ from ours by {worst:.0e} at most. Same key: the "
            f"cached sampler's last {COMPARED_POSITIONS} draws, after random levels, equal those of the naive one.",
        ]
    if results["growth"]:
        header = [
            "side",
            "cached, s",
            "growth",
            "naive, s",
            "growth",
            "naive / cached",
            "naive positions timed",
            "clean",
        ]
        parts += [
            f"{GATED_PIXELCNN.title}, {GATED_PIXELCNN.n} samples, by side of the image:",
            timing.table(header, [row["cells"] for row in results["growth"]]),
        ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    command.main("benchmarks.sampling", Args, measure, report)
