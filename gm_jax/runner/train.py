"""The verb `train`: trains, or goes on where the run in the folder stopped; ends with an evaluation."""

import contextlib
import dataclasses
import os
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

from gm_jax.cluster import detached_output, processes
from gm_jax.cluster.config import ClusterConfig
from gm_jax.data import pipeline
from gm_jax.errors import UserError
from gm_jax.plotting import images
from gm_jax.runner import config as config_lib
from gm_jax.runner import evaluate, speed
from gm_jax.runner.folder import Folder, record_versions
from gm_jax.runner.run import Run, assemble, check_data, restore
from gm_jax.training import loop, multihost, parallel
from gm_jax.training.checkpoint import Checkpointer
from gm_jax.training.metrics import MetricsLog, NonFiniteError
from gm_jax.training.state import TrainState

_SAMPLES_OVER_TIME, _POINTS_OVER_TIME = 64, 1_000


def run(module: str, config: Any, build: Callable, workdir: Path, cluster_config: ClusterConfig | None = None) -> None:
    """Train the run in `workdir` to its end, evaluate it and draw its pictures."""
    cluster_config = cluster_config or ClusterConfig()
    with detached_output.lasting(), processes.joined(cluster_config) as member, contextlib.ExitStack() as stack:
        assembled = _prepare(module, _with_data_dir(config), build, Folder(workdir), stack)
        member.watch(assembled.folder)
        with loop.stop_signals() as interrupted:
            try:
                step = train(assembled, interrupted, member)
            except NonFiniteError as error:
                print(f"error: {error}. The checkpoints before it are kept in {workdir.absolute()}.", file=sys.stderr)
                sys.exit(1)
            stopped = any(multihost.all_gather_json(interrupted()))
        if stopped:
            _say(f"stopped at step {step} and saved; the same command goes on from there")
            return
        _conclude(assembled, member, step)


def _conclude(run: Run, member: processes.Member, last: int) -> None:
    """Evaluate the best checkpoint with all processes and draw with the first; nobody leaves before both are done.

    A signal ends it in good order: alone at once, with others all at the same batch, by votes as in training.
    """
    several = jax.process_count() > 1
    enough = "stopped while evaluating; the training is complete and saved, the same command evaluates it"

    def draw_and_write() -> None:
        try:
            with _sigterm_as_ctrl_c():
                evaluate.finish(run, records + speed.records(run, state), evaluate.draw(run, state, seed=0))
        except KeyboardInterrupt:
            print(enough)

    with loop.stop_signals() if several else _sigterm_as_ctrl_c() as interrupted:

        def before_batch(name: str) -> None:
            # A phase for each batch, and a name for each evaluation, whose first batch compiles.
            member.enter(f"evaluation of {name}", last)
            if several and any(multihost.all_gather_json(interrupted())):
                raise KeyboardInterrupt

        try:
            member.enter("restoring", last)
            state, step = restore(run, "best")
            records = evaluate.measure(run, state, step, split="test", seed=0, before_batch=before_batch)
        except KeyboardInterrupt:
            _say(enough)
            return
        member.enter("drawing", last)
        multihost.all_or_none(draw_and_write if multihost.is_primary() else lambda: None)


def _prepare(module: str, config: Any, build: Callable, folder: Folder, stack: contextlib.ExitStack) -> Run:
    """Everything that can be refused before the first step; then the folder is this run's, and locked."""

    def put_together() -> Run:
        check_folder(folder, module, config)
        assembled = assemble(config, build, folder.root)
        check_batch_size(assembled)
        assembled.abstract_state()  # a network that cannot take these data says so before anything is written
        return assembled

    assembled = multihost.all_or_none(put_together)
    spec = assembled.spec
    processes.check_same(config, module, data=spec.fingerprint)

    def claim() -> None:
        folder.create()
        stack.enter_context(folder.locked())
        if folder.holds_run():
            check_data(assembled, config_lib.load(folder.config))
        config_lib.save(folder.config, module, config, data=spec._asdict())
        devices = [str(device) for device in jax.devices()]
        facts = {"devices": devices, "processes": jax.process_count(), "data": spec.fingerprint}
        record_versions(folder.versions, facts)

    multihost.all_or_none(claim if multihost.is_primary() else lambda: None)
    processes.share(folder)
    return assembled


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
    batch_size, num_examples = run.config.train.batch_size, len(run.splits["train"]["x"])
    if batch_size > num_examples:
        raise UserError(f"a batch of {batch_size} is more than the {num_examples} examples to train on.")
    parallel.check_batch_size(batch_size, run.strategy)


def train(run: Run, interrupted: Callable[[], bool], member: processes.Member) -> int:
    """Train from the latest whole checkpoint, or from the start; returns the step reached."""
    config, several = run.config.train, jax.process_count() > 1
    step_fn = run.train_step()
    schedule = loop.make_schedule(
        num_steps=config.steps,
        steps_per_call=config.steps_per_call,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
    )
    if schedule.steps_per_call < config.steps_per_call:
        _say(
            f"--train.steps-per-call is lowered from {config.steps_per_call} to {schedule.steps_per_call}, "
            "which divides --train.steps, --train.log-every and --train.checkpoint-every"
        )
    if several:
        step_fn = loop.counting_votes(step_fn, axis_name=run.strategy.axis_name)
    split, size = run.splits["train"], schedule.steps_per_call

    def batches(step: int):
        member.enter("reading data", step)
        host = pipeline.train_batches(split, config.batch_size, config.seed, step, size, run.strategy.shard)
        if several:
            host[loop.VOTES] = np.full((size, jax.local_device_count()), interrupted(), np.float32)
        placed = run.strategy.place_batches(host)
        member.enter("training" if step > first else "compilation", step)
        return placed

    with Checkpointer(
        run.folder.checkpoints, keep_latest=config.keep_checkpoints, fingerprint=run.fingerprint
    ) as checkpointer:
        restored = checkpointer.restore_latest(run.abstract_state())
        state = run.strategy.place(restored.state if restored is not None else run.initial_state())
        first = int(state.step)
        if restored is not None and first < config.steps:
            _say(f"going on from step {first} of {config.steps}")
        recorder_type = _Recorder if multihost.is_primary() else _Follower
        with recorder_type(run, first) as recorder:
            state = loop.fit(
                state,
                run.strategy.compile(step_fn),
                batches,
                schedule,
                _effects(checkpointer, recorder, member, (lambda: False) if several else interrupted),
            )
    return int(state.step)


def _effects(
    checkpointer: Checkpointer, recorder: "_Follower", member: processes.Member, interrupted: Callable[[], bool]
) -> loop.Effects:
    """What the loop does: what a recorder records, and a checkpointer saves, under the eyes of the others."""

    def validate(step: int, state: TrainState) -> float | None:
        member.enter("validation", step)
        # Not before process 0 has also drawn its samples: the others must not wait for that in a train step.
        return multihost.broadcast(recorder.validate(step, parallel.everywhere(state)))

    def save(step: int, state: TrainState, validation: float | None) -> None:
        member.enter("saving", step)
        checkpointer.save(step, parallel.everywhere(state), metric=validation if recorder.is_whole(step) else None)

    return loop.Effects(
        log=recorder.log,
        validate=validate,
        save=save,
        finished=lambda: multihost.broadcast(recorder.out_of_patience()),
        interrupted=interrupted,
        tick=recorder.tick,
    )


def _say(line: str) -> None:
    if multihost.is_primary():
        print(line)


def _with_data_dir(config: Any) -> Any:
    """The folder must be found again from wherever the run is opened later, in a shell with other variables too."""
    where = config.data.dir or os.environ.get("TFDS_DATA_DIR")
    if not where:
        return config
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, dir=str(Path(where).expanduser().absolute()))
    )


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """KeyboardInterrupt at either."""
    previous = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Follower:
    """What every process does while it trains; those that are not process 0 do no more."""

    def __init__(self, run: Run, step: int):
        self._run = run
        log_prob = run.experiment.validation or run.experiment.model.log_prob
        self._evaluate = None if log_prob is None else evaluate.evaluator(run, log_prob, seed=run.config.train.seed)

    def __enter__(self) -> "_Follower":
        return self

    def __exit__(self, *exception) -> None:
        pass

    def log(self, step: int, values: dict[str, float]) -> None:
        pass

    def validate(self, step: int, state: TrainState) -> float | None:
        if self._evaluate is None:
            return None
        validation = self._evaluate(evaluate.calibrated(self._run, state)[0], "validation").mean
        if not np.isfinite(validation):
            raise NonFiniteError(step, "validation log_prob", validation)
        return validation

    def is_whole(self, step: int) -> bool:
        """Whether every player has begun to move: a model of which a part is yet to train is never the best."""
        return all(objective.updates_before(step) > 0 for objective in self._run.experiment.model.objectives)

    def out_of_patience(self) -> bool:
        return False  # process 0, which has the log, decides

    def tick(self, step: int) -> None:
        pass


class _Recorder(_Follower):
    """What a run shows and writes while it trains: metrics, events, samples over time, the progress bar."""

    def __init__(self, run: Run, step: int):
        super().__init__(run, step)
        config = run.config.train
        self._log = MetricsLog(run.folder.metrics, step=step)
        # Events after `step` are of a run that died; TensorBoard drops what is purged.
        self._events = tensorboardX.SummaryWriter(str(run.folder.tensorboard), purge_step=step + 1)
        self._bar = tqdm(total=config.steps, initial=step, unit="step", disable=None, dynamic_ncols=True)
        self._loss, self._since = "", (step, time.perf_counter())

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
        losses = {name: value for name, value in values.items() if name.rpartition("/")[2] == "loss"}
        self._loss = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        self._bar.set_postfix_str(f"{self._loss}, {speed:,.0f} examples/s")

    def validate(self, step: int, state: TrainState) -> float | None:
        num = _POINTS_OVER_TIME if self._run.spec.shape == (2,) else _SAMPLES_OVER_TIME
        samples = images.as_grid(evaluate.draw_samples(self._run, state, num, seed=0))
        path = self._run.folder.samples / f"step-{step:07d}.png"
        images.draw(path, samples, self._run.spec, behind=evaluate.behind_points(self._run))
        self._events.add_image("samples", images.read(path), step, dataformats="HWC")
        statistics = evaluate.counted(self._run, state, seed=0)
        if statistics:
            self._log.write(step, "samples", statistics)
        for name, value in statistics.items():
            self._events.add_scalar(f"samples/{name}", value, step)
        validation = super().validate(step, state)
        if validation is not None:
            self._log.write(step, "validation", {"log_prob": validation})
            self._events.add_scalar("validation/log_prob", validation, step)
        shown = "" if validation is None else f", validation -log p {-validation:.3f} nats"
        self._bar.write(f"step {step}: {self._loss}{shown}")
        self._since = (step, time.perf_counter())
        return validation

    def out_of_patience(self) -> bool:
        patience = self._run.config.train.patience
        values = [value for step, value in self._log.column("validation", "log_prob") if self.is_whole(step)]
        return bool(patience) and len(values) > patience and max(values[-patience:]) <= max(values[:-patience])

    def tick(self, step: int) -> None:
        self._bar.update(step - self._bar.n)
