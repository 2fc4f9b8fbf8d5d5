"""A table of each of our cases against each of theirs: times of one unit of work, ratios, and a goal.

The goal compares what experiments run with the plain peer: our first case with their first case.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import command, timing

OURS = "gm_jax"  # with the XLA flags of experiments
UNFLAGGED = f"{OURS}, jaxlib's default flags"  # as in a user's own code
SPREAD = f"{OURS}, a device for each core"  # the same by `pmap`, with JAX_NUM_CPU_DEVICES
HEADER = ("what", "ours", "ms", "theirs", "ms", "times", "goal", "clean")


def flags_of_ours(experiment_flags: str, *, matter: bool = True) -> dict[str, str]:
    """Maps the names of our cases to XLA flags: those of experiments, and none if the flags matter."""
    return {OURS: experiment_flags, **({UNFLAGGED: ""} if matter and experiment_flags else {})}


def compare(
    title: str,
    ours: Mapping[str, timing.Case],
    theirs: Mapping[str, timing.Case],
    args: command.Args,
    *,
    at_least: float | None = None,
    units: int = 1,
) -> dict[str, Any]:
    """Times all cases in turns and compares them by `of_rounds`."""
    rounds = timing.alternate({**ours, **theirs}, rounds=args.rounds, seconds=args.seconds, title=title)
    return of_rounds(title, rounds, tuple(ours), tuple(theirs), at_least=at_least, units=units)


def of_rounds(
    title: str,
    rounds: Sequence[Mapping[str, timing.Sample]],
    ours: Sequence[str],
    theirs: Sequence[str],
    *,
    at_least: float | None = None,
    units: int = 1,
) -> dict[str, Any]:
    """Compares cases by their samples.

    Args:
        title: what was timed.
        rounds: the samples.
        ours: names of our cases; the goal applies to the first.
        theirs: names of their cases; the goal applies to the first.
        at_least: the goal for their time over ours; None for no goal.
        units: pieces of work in one unit of work of a sample.

    Returns:
        Seconds of one piece of work by case, ratios, cells of rows under HEADER, and the samples.
    """
    medians = {name: timing.median_seconds(rounds, name) for name in (*ours, *theirs)}
    seconds = {name: median and median / units for name, median in medians.items()}
    ratios = {pair: timing.ratio(rounds, over=pair[1], under=pair[0]) for pair in itertools.product(ours, theirs)}

    def cells(pair: tuple[str, str], ratio: timing.Ratio) -> list[str]:
        goal = "-"
        if at_least is not None and pair == (ours[0], theirs[0]):
            goal = timing.verdict(ratio, at_least=at_least)
        times = ((name, timing.number(seconds[name] and 1e3 * seconds[name], ".4g")) for name in pair)
        return [title, *itertools.chain(*times), str(ratio), goal, ratio.cleanliness]

    return {
        "title": title,
        "seconds": seconds,
        "ratios": [{"under": pair[0], "over": pair[1], **ratio._asdict()} for pair, ratio in ratios.items()],
        "cells": [cells(pair, ratio) for pair, ratio in ratios.items()],
        "rounds": rounds,
    }


def table(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Formats the rows of all comparisons as one Markdown table."""
    return timing.table(HEADER, [cells for comparison in comparisons for cells in comparison["cells"]])
