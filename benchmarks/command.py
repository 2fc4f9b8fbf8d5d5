"""The command line that all benchmarks share: flags, requirements, and the printed and written results."""

import dataclasses
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from benchmarks import timing
from gm_jax.errors import UserError
from gm_jax.runner import xla_flags


@dataclasses.dataclass(frozen=True)
class Args:
    """The flags of every benchmark."""

    rounds: int = 9
    """Number of clean rounds for each comparison; at most twice as many rounds are run."""
    seconds: float = 1.0
    """Length of one sample, unless a single unit of work is longer."""
    json: Path | None = None
    """File to write the results and all samples to."""


@dataclasses.dataclass(frozen=True)
class FlaggedArgs(Args):
    """The flags of benchmarks that depend on XLA's own flags."""

    experiment_flags: str = xla_flags.CONVOLUTIONS
    """Added to XLA_FLAGS, as experiments do. Leave it empty for a jaxlib that does not know them."""


def main(
    module: str,
    args_type: type[Args],
    measure: Callable[[Any], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
    *,
    against: str = "torch",
) -> None:
    """Runs a benchmark: parses the flags, measures, prints and writes the results.

    Args:
        module: name of the benchmark's module.
        args_type: its flags.
        measure: flags -> results.
        report: results, with machine and versions -> Markdown.
        against: the package to compare with.
    """
    args = tyro.cli(args_type, prog=f"python -m {module}", description=args_type.__doc__)
    try:
        check(against)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    os.environ.pop("JAX_NUM_CPU_DEVICES", None)  # a case has one device, unless it says how many
    results = {
        "machine": timing.machine(),
        "versions": timing.versions("jax", "jaxlib", "flax", "optax", "numpy", *dict.fromkeys(("torch", against))),
        "matmul": timing.in_own_process(timing.matmul_rate),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "args": {name: value for name, value in dataclasses.asdict(args).items() if name != "json"},
        **measure(args),
    }
    print(f"{report(results)}\n\n{footer(results)}")
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def check(against: str) -> None:
    """Checks what a benchmark needs.

    Raises:
        UserError: the package is missing, or the machine cannot recognise clean samples.
    """
    timing.check_machine()
    if importlib.util.find_spec(against) is None:
        raise UserError(f"{against}, the package to compare with, is not installed: pip install -e '.[benchmarks]'")


def footer(results: dict[str, Any]) -> str:
    """Formats flags, machine and versions in one line."""
    flags = results["args"].get("experiment_flags")
    prefix = "" if flags is None else f"gm_jax: with XLA_FLAGS={flags}, as in experiments. "
    peak = f"Products of float32 matrices here: {results['matmul'] / 1e9:.0f} GFLOP/s. "
    return f"{prefix}{peak}{results['machine']}; {', '.join(' '.join(item) for item in results['versions'].items())}."
