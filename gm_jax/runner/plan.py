"""The verb `plan`: computes what training an experiment would cost on TPUs, without any TPU."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from gm_jax.errors import UserError
from gm_jax.planning import plan, report, roofline, tpus
from gm_jax.runner import config as config_lib
from gm_jax.runner.folder import write_text
from gm_jax.runner.run import Run, abstract_batch, assemble
from gm_jax.training import loop
from gm_jax.training.step import TrainStep, make_train_step

if TYPE_CHECKING:
    from gm_jax.runner.cli import PlanArgs


def plan_run(module: str, config: Any, build: Callable, args: "PlanArgs") -> None:
    """Prints what a train step costs on each slice; writes it as JSON and, for several slices, as a plot."""
    slices = [tpus.parse_slice(name) for name in args.topology]
    if not slices:
        raise UserError("no topology is given. For example: plan --topology v5e:4x4 v5e:16x16")
    batch_sizes = [plan.global_batch(config.train.batch_size, args.batch_per_chip, wanted) for wanted in slices]
    for path in (args.json, args.plot):
        _make_folder(path)  # before compiling, which may take minutes
    # The programs run nowhere: do not start this machine's accelerator.
    jax.config.update("jax_platforms", "cpu")
    devices = [roofline.topology_devices(wanted) for wanted in slices]
    run = assemble(config, build, Path())
    plans = []
    for wanted, each, batch_size in zip(slices, devices, batch_sizes, strict=True):
        print(f"compiling for {wanted.name} ...", file=sys.stderr)
        plans.append(make_plan(run, wanted, each, batch_size))
    if args.markdown:
        print(report.markdown(module, plans))
    else:
        print(f"{module} on {run.spec.name}; numbers are per step and chip unless noted\n")
        print(report.table(plans))
        print("\n" + "\n".join(report.notes(plans, num_examples=len(run.splits["train"]["x"]))))
    if args.json is not None:
        write_text(args.json, json.dumps(report.as_json(module, config_lib.to_dict(config), plans), indent=1) + "\n")
        print(f"{args.json}: the same as JSON", file=sys.stderr)
    if len(plans) > 1:
        report.draw(args.plot, plans)
        print(f"{args.plot}: cost against the number of chips", file=sys.stderr)


def make_plan(run: Run, wanted: tpus.Slice, devices: Sequence[jax.Device], batch_size: int) -> plan.Plan:
    """Plans the train step of a run for a slice."""
    train = run.config.train
    schedule = loop.make_schedule(
        num_steps=train.steps,
        steps_per_call=train.steps_per_call,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
    )

    def make_step(axis_name: str | None) -> TrainStep:
        return make_train_step(
            run.experiment.model,
            run.experiment.optimizers,
            seed=train.seed,
            ema_decay=train.ema_decay or None,
            axis_name=axis_name,
        )

    return plan.make_plan(
        make_step,
        run.abstract_state(),
        abstract_batch(run.spec, batch_size),
        wanted,
        devices,
        strategy=train.parallel,
        batch_size=batch_size,
        steps_per_call=schedule.steps_per_call,
    )


def _make_folder(path: Path | None) -> None:
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"cannot write {path}: {path.parent} is not a folder. Choose another path.") from None
