"""Plans the step of each preset on TPUs, and records the costs in docs/results/preset_plans.json.

    python -m tools.preset_costs                                # all presets, one after the other: an hour and more
    python -m tools.preset_costs --only ddpm/mnist nice/mnist   # these; the others keep their rows
    python -m tools.results                                     # then: writes the table of docs/presets.md

It needs libtpu (`pip install -e '.[tpu]'`) and no data. Each plan is a process of its own, which is stopped at the
limit.
"""

import dataclasses
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gm_jax import runner
from gm_jax.files import write_text
from gm_jax.planning import report, tpus
from gm_jax.recipes import presets
from gm_jax.recipes.presets import Preset
from tools.results import RECORDS

_FIELDS = (
    "preset",
    "images per step",
    "memory per chip",
    "step at least, bound by",
    "images/s, at most",
    "share of peak, at most",
    "hours at least, steps",
    "cycles, estimated",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Plans the step of each preset on TPUs, and records the costs."""

    only: tuple[str, ...] = ()
    """The presets to plan, by their full names, such as ddpm/cifar10; all by default."""
    topology: str = "v5e:2x4"
    """The slice to plan for."""
    limit: float = 1_800.0
    """Seconds after which a plan is stopped."""
    folder: Path = RECORDS
    """Folder of the records."""


def record(config: Config) -> str:
    """Plans the chosen presets and replaces their records; returns what was done.

    Raises:
        UserError: there is no such preset.
    """
    chosen = [presets.get(name) for name in config.only] or list(presets.PRESETS.values())
    path = config.folder / "preset_plans.json"
    known = {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]} if path.exists() else {}
    for preset in chosen:
        labels = planned(preset, config.topology, config.limit)
        print(labels, file=sys.stderr, flush=True)
        known[preset.name] = _row(preset, config.topology, labels)
        rows = [known.get(name) or _not_planned(other, config.topology) for name, other in presets.PRESETS.items()]
        columns = [{"title": field, "field": field} for field in _FIELDS]
        content = {"columns": columns, "rows": rows}
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return f"{path}: {len(chosen)} plans. Next: python -m tools.results"


def _row(preset: Preset, topology: str, labels: Mapping[str, str]) -> dict[str, Any]:
    facts = {"numbers": [], "command": command_of(preset, topology), "device": "none: compiled, not run"}
    return {"id": preset.name, "labels": dict(labels), **facts, "versions": None, "commit": None}


def _not_planned(preset: Preset, topology: str) -> dict[str, Any]:
    return _row(preset, topology, failed(preset, "not planned yet"))


def batch_per_chip(preset: Preset, topology: str) -> int:
    """Returns the examples of each chip: the preset's batch, rounded up to a multiple of the chips."""
    return math.ceil(preset.config.train.batch_size / tpus.parse_slice(topology).num_chips)


def command_of(preset: Preset, topology: str) -> str:
    """Returns the command that prints the plan of a preset."""
    experiment, _, name = preset.name.partition("/")
    size = batch_per_chip(preset, topology)
    flags = f"--preset {name} --train.parallel pmap --batch-per-chip {size} --topology {topology}"
    return f"python -m experiments.{experiment} plan {flags}"


def planned(preset: Preset, topology: str, limit: float) -> dict[str, str]:
    """Runs the plan of a preset in a process of its own, and returns its row; a plan that fails says why."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        words = command_of(preset, topology).split()
        try:
            done = subprocess.run(
                [sys.executable, *words[1:], "--json", str(file)], capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return failed(preset, f"did not compile in {limit / 60.0:g} minutes")
        if done.returncode != 0:
            return failed(preset, " ".join(done.stderr.split()[-30:]))
        (plan,) = json.loads(file.read_text(encoding="utf-8"))["plans"]
    return cells(preset, plan) if plan["fits"] else failed(preset, "does not fit a chip's memory")


def failed(preset: Preset, why: str) -> dict[str, str]:
    """Returns the row of a preset without a plan."""
    return dict.fromkeys(_FIELDS, "") | {"preset": f"`{preset.name}`", "step at least, bound by": why}


def cells(preset: Preset, plan: Mapping[str, Any]) -> dict[str, str]:
    """Returns the row of a plan. The roofline is a lower bound of the time, more so with loops of unknown length."""
    has_unknown, steps = None in plan["inner_loops"], preset.config.train.steps
    seconds = plan["seconds"]["step"]
    hours = steps * seconds / 3600.0
    texts = (
        f"`{preset.name}`",
        f"{plan['batch_size']:,}",
        report.with_prefix(plan["memory"]["total"], "B"),
        f"{report.with_prefix(seconds, 's')}, {plan['bound']}{report.LARGER_BRANCHES if plan['conditionals'] else ''}",
        f"{plan['examples_per_second']:,.0f}",
        "unknown" if has_unknown else f"{plan['share_of_peak']:.1%}",
        f"{hours:.0f}, {steps:,}" if hours > 99.0 else f"{hours:.2g}, {steps:,}",
        f"{'at least ' if has_unknown else ''}{report.with_prefix(plan['cycles'], '')}",
    )
    return dict(zip(_FIELDS, texts, strict=True))


if __name__ == "__main__":
    runner.program(Config, record)
