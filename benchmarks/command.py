"""What the commands of all benchmarks share: flags, what must be installed, the results printed and written."""

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
from gm_jax.runner import cpu_flags


@dataclasses.dataclass(frozen=True)
class Args:
    """How long is measured, and where the results go."""

    rounds: int = 9
    """Clean rounds wanted of each comparison; at most twice as many are run."""
    seconds: float = 1.0
    """Length of one sample, where a unit of work is not longer."""
    json: Path | None = None
    """Where to write the results and every sample."""


@dataclasses.dataclass(frozen=True)
class FlaggedArgs(Args):
    """The same of what depends on XLA's flags."""

    experiment_flags: str = cpu_flags.FLAG
    """Added to XLA_FLAGS, as experiments do. Empty for a jaxlib that does not know them: it would end the process."""


def main(
    module: str,
    args_type: type[Args],
    measure: Callable[[Any], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
    *,
    against: str = "torch",
) -> None:
    """Parse, measure, print, write.

    Args:
        module: the benchmark's name, `__spec__.name`.
        args_type: its flags.
        measure: flags -> results.
        report: results, with the machine's -> Markdown.
        against: the package to compare with, which needs PyTorch.
    """
    args = tyro.cli(args_type, prog=f"python -m {module}", description=args_type.__doc__)
    try:
        check(against)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    results = {
        "machine": timing.machine(),
        "versions": timing.versions("jax", "jaxlib", "flax", "optax", "numpy", *dict.fromkeys(("torch", against))),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "args": {name: value for name, value in dataclasses.asdict(args).items() if name != "json"},
        **measure(args),
    }
    print(f"{report(results)}\n\n{footer(results)}")
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def check(against: str) -> None:
    """Refuse what could not be measured.

    Raises:
        UserError: the package is missing, or the machine cannot tell clean samples.
    """
    timing.check_machine()
    if importlib.util.find_spec(against) is None:
        raise UserError(f"{against}, to compare with, is not installed: pip install -e '.[benchmarks]'")


def footer(results: dict[str, Any]) -> str:
    """Flags, machine and versions in a line."""
    flags = results["args"].get("experiment_flags")
    told = "" if flags is None else f"gm_jax: with XLA_FLAGS={flags}, as experiments run. "
    return f"{told}{results['machine']}; {', '.join(' '.join(item) for item in results['versions'].items())}."
