"""The verb `plan`: estimates what an experiment would cost on TPUs, without any TPU."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from gm_jax import signals
from gm_jax.config import Count, ExperimentConfig, saved
from gm_jax.errors import UserError
from gm_jax.files import write_text
from gm_jax.recipes.presets import Preset
from gm_jax.runner import train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gm_jax.data.sources import Source
    from gm_jax.planning import tpus
    from gm_jax.planning.plan import Plan
    from gm_jax.runner.run import Run


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanArgs:
    """Which TPUs to plan for, and where to write the plan."""

    plot: Path
    """The PNG to write if there are several topologies."""
    topology: tuple[str, ...] = ()
    """Slices to plan for, each a chip (v4, v5e, v5p, v6e) and its chips along each axis: v5e:4x4 v5p:8x8x8."""
    batch_per_chip: Count | None = None
    """Examples per step on each chip; by default --train.batch-size is divided among the chips."""
    json: Path | None = None
    """A file for the same numbers as JSON, in bytes, FLOPs and seconds."""
    markdown: bool = False
    """Print rows of a Markdown table instead, one per topology."""


def flags(config: ExperimentConfig, plot: Path, presets: Mapping[str, Preset] = MappingProxyType({})) -> Any:
    """Returns a dataclass instance with the default of every flag: `plan` and `config`."""
    fields = [
        ("plan", Annotated[PlanArgs, arg(name="")], dataclasses.field(default=PlanArgs(plot=plot))),
        ("config", Annotated[type(config), arg(name="")], dataclasses.field(default=config)),
        *train.choice_flags(type(config)),
        *train.preset_flag(presets),
    ]
    about = "Compile the train step for TPUs that need not exist: report its cost, and whether it fits."
    return dataclasses.make_dataclass("Args", fields, namespace={"__doc__": about}, frozen=True)()


def plan_run(module: str, config: ExperimentConfig, args: PlanArgs) -> None:
    """Prints what the experiment costs on each slice; writes it as JSON and, for several slices, as a plot.

    Args:
        module: of the experiment.
        config: its configuration.
        args: the flags.
    """
    import jax

    from gm_jax.planning import plan, report, roofline, tpus
    from gm_jax.runner.run import NOTHING, Given, assemble

    slices = [tpus.parse_slice(name) for name in args.topology]
    if not slices:
        raise UserError("no TPUs are named: give --topology, for example plan --topology v5e:4x4 v5e:16x16.")
    batch_sizes = [plan.global_batch(config.train.batch_size, args.batch_per_chip, wanted) for wanted in slices]
    for path in (args.json, args.plot):
        _make_room(path)  # before minutes of compiling
    # The programs are compiled for TPUs and run nowhere: this machine's accelerators must not be started.
    jax.config.update("jax_platforms", "cpu")
    devices = [roofline.topology_devices(wanted) for wanted in slices]
    shapes = known_source(config)
    run = assemble(config, Path(), given=NOTHING if shapes is None else Given(source=shapes))
    plans = []
    for wanted, each, batch_size in zip(slices, devices, batch_sizes, strict=True):
        signals.check()
        print(f"compiling for {wanted.name} ...", file=sys.stderr)
        plans.append(make_plan(run, wanted, each, batch_size))
    if args.markdown:
        print(report.markdown(module, plans))
    else:
        print(f"{module} on {run.spec.name}, numbers are per step and chip unless noted\n")
        print(report.table(plans))
        num_examples = len(run.loaded["train"]["x"]) if shapes is None else None
        print("\n" + "\n".join(report.notes(plans, num_examples=num_examples)))
    if args.json is not None:
        write_text(args.json, json.dumps(report.as_json(module, saved.to_dict(config), plans), indent=1) + "\n")
        print(f"{args.json}: the same as JSON", file=sys.stderr)
    if len(plans) > 1:
        report.draw(args.plot, plans)
        print(f"{args.plot}: how the cost grows with the number of chips", file=sys.stderr)


def known_source(config: ExperimentConfig) -> "Source | None":
    """Returns the shapes of a well-known image set, without examples, or None for data that must be read."""
    from gm_jax.data.known_sets import KNOWN_SETS
    from gm_jax.data.sources import Source, Spec

    known = KNOWN_SETS.get(config.data.name)
    if known is None:
        return None
    size = config.data.size
    shape = known.shape if size is None else (size, size, known.shape[-1])
    return Source(Spec(config.data.name, shape, known.levels, known.num_classes, fingerprint=""), {})


def make_plan(run: "Run", wanted: "tpus.Slice", devices: "Sequence[Any]", batch_size: int) -> "Plan":
    """Plans the train step of a run for a slice.

    Args:
        run: with or without its data.
        wanted: the slice.
        devices: its devices, from `roofline.topology_devices`.
        batch_size: examples per step over all chips.
    """
    from gm_jax.planning import plan
    from gm_jax.runner.run import abstract_batch
    from gm_jax.training import loop

    train_config = run.config.train
    schedule = loop.make_schedule(
        num_steps=train_config.steps,
        steps_per_call=train_config.steps_per_call,
        log_every=train_config.log_every,
        checkpoint_every=train_config.checkpoint_every,
    )

    return plan.make_plan(
        run.train_step,
        run.abstract_state(),
        abstract_batch(run.spec, batch_size),
        wanted,
        devices,
        strategy=train_config.parallel,
        batch_size=batch_size,
        steps_per_call=schedule.steps_per_call,
    )


def _make_room(path: Path | None) -> None:
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"cannot write {path}, because {path.parent} is not a folder: choose another path.") from None
