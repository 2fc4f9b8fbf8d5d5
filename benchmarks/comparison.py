"""A table of ours against theirs: each of our cases over each of theirs, times of one unit, ratios, a goal.

The goal is that of what experiments run against the plain peer: the first case of ours over the first of theirs.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import command, timing

OURS = "gm_jax"  # as experiments run it
UNFLAGGED = f"{OURS}, jaxlib's default flags"  # as code of one's own runs
HEADER = ("what", "ours", "ms", "theirs", "ms", "times", "goal", "clean")


def flags_of_ours(experiment_flags: str, *, matter: bool = True) -> dict[str, str]:
    """Name of a case of ours -> XLA's flags: those of experiments first, and none where that makes a difference."""
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
    """All cases timed in turns, and what `of_rounds` makes of it."""
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
    """What samples say.

    Args:
        title: of what was timed.
        rounds: the samples.
        ours: names of our cases; of the first is the goal.
        theirs: names of their cases; against the first is the goal.
        at_least: the goal, their time over ours; None for none.
        units: pieces of work in one of a sample's.
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
    """Their rows, one under the other, as Markdown."""
    return timing.table(HEADER, [cells for comparison in comparisons for cells in comparison["cells"]])
