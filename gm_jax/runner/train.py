"""The verb `train`: trains, or goes on where the run in the folder stopped; ends with an evaluation."""

import contextlib
import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorboardX
from tqdm import tqdm

from gm_jax.data import pipeline
from gm_jax.errors import UserError
from gm_jax.runner import config as config_lib
from gm_jax.runner import evaluate, pictures
from gm_jax.runner.folder import Folder, record_versions
from gm_jax.runner.run import Run, assemble, check_data, restore
from gm_jax.training import loop, parallel
from gm_jax.training.checkpoint import Checkpointer
from gm_jax.training.metrics import MetricsLog, NonFiniteError
from gm_jax.training.state import TrainState
from gm_jax.training.step import make_train_step

_SAMPLES_OVER_TIME = 64


def run(module: str, config: Any, build: Callable, workdir: Path) -> None:
    """Train the run in `workdir` to its end, evaluate it and draw its pictures."""
    folder = Folder(workdir)
    config = _with_absolute_data_dir(config)
    check_folder(folder, module, config)
    assembled = assemble(config, build, workdir)
    check_batch_size(assembled)
    assembled.abstract_state()  # a network that cannot take these data says so before anything is written
    folder.create()
    with folder.locked():
        fingerprint = assembled.source.spec.fingerprint
        if folder.holds_run():
            check_data(assembled, config_lib.load(folder.config))
        config_lib.save(folder.config, module, config, data=fingerprint)
        devices = [str(device) for device in jax.devices()]
        record_versions(folder.versions, {"devices": devices, "data": fingerprint})
        with loop.stop_signals() as interrupted:
            try:
                step = train(assembled, interrupted)
            except NonFiniteError as error:
                print(f"error: {error}. The checkpoints before it are kept in {folder.root}.", file=sys.stderr)
                sys.exit(1)
        if interrupted():
            print(f"stopped at step {step} and saved; the same command goes on from there")
            return
        try:
            with _sigterm_as_ctrl_c():
                state, step = restore(assembled, "best")
                records = evaluate.measure(assembled, state, step, split="test", seed=0)
                evaluate.finish(assembled, records, evaluate.draw(assembled, state, seed=0))
        except KeyboardInterrupt:
            print("stopped while evaluating; the training is complete and saved, the same command evaluates it")


def check_folder(folder: Folder, module: str, config: Any) -> None:
    """Refuse a folder that holds something else, or a run whose configuration gives another result.

    Raises:
        UserError: it does.
    """
    if folder.holds_something_else():
        raise UserError(f"{folder.root} holds something that is not a run: choose another --workdir.")
    if not folder.holds_run():
        return
    saved = config_lib.load(folder.config)
    if saved.experiment != module:
        raise UserError(f"{folder.root} holds a run of {saved.experiment}: choose another --workdir.")
    differences = config_lib.differences(config, saved.config)
    if differences and not goes_on_longer(config, saved.config):
        lines = [
            f"{folder.root} holds a run with another configuration: choose another --workdir, or remove it.",
            "; ".join(differences),
        ]
        if len(differences) == 1 and differences[0].startswith("train.steps:"):
            lines.append(
                "A run can be made longer where its learning rate is constant and both numbers of steps are multiples "
                "of train.checkpoint_every."
            )
        raise UserError("\n".join(lines))


def goes_on_longer(config: Any, saved: dict[str, Any]) -> bool:
    """Whether a configuration is a saved one with more steps, and its first steps are bit for bit the saved run's.

    The learning rate must not depend on the number of steps; nor may anything have happened at the old end that a
    longer run would not do there, nor the length of the compiled calls change: hence the multiples.
    """
    saved_train, more, every = saved.get("train"), config.train.steps, config.train.checkpoint_every
    steps = saved_train.get("steps") if isinstance(saved_train, dict) else None
    if not isinstance(steps, int) or not 0 < steps < more or steps % every or more % every:
        return False
    as_saved = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))
    return config_lib.steps_are_independent_of_their_number(config) and not config_lib.differences(as_saved, saved)


def check_batch_size(run: Run) -> None:
    """Refuse a batch that the data cannot fill or the devices cannot share.

    Raises:
        UserError: it is one.
    """
    batch_size, num_examples = run.config.train.batch_size, len(run.source.splits["train"]["x"])
    if batch_size > num_examples:
        raise UserError(f"a batch of {batch_size} is more than the {num_examples} examples to train on.")
    parallel.check_batch_size(batch_size, run.strategy)


def train(run: Run, interrupted: Callable[[], bool]) -> int:
    """Train from the latest whole checkpoint, or from the start; returns the step reached."""
    config = run.config.train
    step_fn = make_train_step(
        run.experiment.model,
        run.experiment.optimizers,
        seed=config.seed,
        ema_decay=config.ema_decay or None,
        axis_name=run.strategy.axis_name,
    )
    schedule = loop.make_schedule(
        num_steps=config.steps,
        steps_per_call=config.steps_per_call,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
    )
    split = run.source.splits["train"]

    def batches(step: int):
        host = pipeline.train_batches(split, config.batch_size, config.seed, step, schedule.steps_per_call)
        return run.strategy.place_batches(host)

    with Checkpointer(
        run.folder.checkpoints, keep_latest=config.keep_checkpoints, fingerprint=run.fingerprint
    ) as checkpointer:
        restored = checkpointer.restore_latest(run.abstract_state())
        state = run.strategy.place(restored.state if restored is not None else run.initial_state())
        first = int(state.step)
        if restored is not None and first < config.steps:
            print(f"going on from step {first} of {config.steps}")
        with _Recorder(run, first) as recorder:
            state = loop.fit(
                state,
                run.strategy.compile(step_fn),
                batches,
                schedule,
                loop.Effects(
                    log=recorder.log,
                    validate=recorder.validate,
                    save=checkpointer_save(checkpointer),
                    finished=recorder.out_of_patience,
                    interrupted=interrupted,
                    tick=recorder.tick,
                ),
            )
    return int(state.step)


def _with_absolute_data_dir(config: Any) -> Any:
    """The folder must be found again from wherever the run is opened later."""
    if config.data.dir is None:
        return config
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, dir=str(Path(config.data.dir).expanduser().absolute()))
    )


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def checkpointer_save(checkpointer: Checkpointer) -> Callable[[int, TrainState, float | None], None]:
    """`save` as the loop calls it."""
    return lambda step, state, validation: checkpointer.save(step, state, metric=validation)


class _Recorder:
    """What a run shows and writes while it trains: metrics, events, samples over time, the progress bar."""

    def __init__(self, run: Run, step: int):
        config = run.config.train
        self._run = run
        self._log = MetricsLog(run.folder.metrics, step=step)
        # Events after `step` are of a run that died; TensorBoard drops what is purged.
        self._events = tensorboardX.SummaryWriter(str(run.folder.tensorboard), purge_step=step + 1)
        self._bar = tqdm(total=config.steps, initial=step, unit="step", disable=None, dynamic_ncols=True)
        self._loss, self._since = "", (step, time.perf_counter())
        log_prob = run.experiment.validation or run.experiment.model.log_prob
        self._evaluate = None if log_prob is None else evaluate.evaluator(run, log_prob, seed=config.seed)

    def __enter__(self) -> "_Recorder":
        return self

    def __exit__(self, *exception) -> None:
        self._bar.close()
        self._log.close()
        self._events.close()

    def log(self, step: int, values: dict[str, float]) -> None:
        self._log.write(step, "train", values)
        for name, value in values.items():
            self._events.add_scalar(f"train/{name}", value, step)
        first, then = self._since
        now = time.perf_counter()
        speed = (step - first) * self._run.config.train.batch_size / max(now - then, 1e-9)
        self._since = (step, now)
        self._events.add_scalar("speed/examples_per_second", speed, step)
        self._loss = f"loss {values['loss']:.4g}" if "loss" in values else ""
        self._bar.set_postfix_str(f"{self._loss}, {speed:,.0f} examples/s")

    def validate(self, step: int, state: TrainState) -> float | None:
        samples = pictures.as_grid(evaluate.draw_samples(self._run, state, _SAMPLES_OVER_TIME, seed=0))
        path = self._run.folder.samples / f"step-{step:07d}.png"
        pictures.draw(path, samples, self._run.source.spec)
        self._events.add_image("samples", pictures.read(path), step, dataformats="HWC")
        validation = None
        if self._evaluate is not None:
            summary = self._evaluate(state, "validation")
            validation = summary.mean
            if not np.isfinite(validation):
                raise NonFiniteError(step, "validation log_prob", validation)
            self._log.write(step, "validation", {"log_prob": validation})
            self._events.add_scalar("validation/log_prob", validation, step)
        shown = "" if validation is None else f", validation -log p {-validation:.3f} nats"
        self._bar.write(f"step {step}: {self._loss}{shown}")
        self._since = (step, time.perf_counter())
        return validation

    def out_of_patience(self) -> bool:
        patience = self._run.config.train.patience
        values = [value for _, value in self._log.column("validation", "log_prob")]
        return bool(patience) and len(values) > patience and max(values[-patience:]) <= max(values[:-patience])

    def tick(self, step: int) -> None:
        self._bar.update(step - self._bar.n)
