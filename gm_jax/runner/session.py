"""A training session: checks, training or resuming, and the evaluation at the end; by one process or several."""

import contextlib
import dataclasses
import functools
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gm_jax import signals
from gm_jax.cluster import processes
from gm_jax.cluster.config import ClusterConfig
from gm_jax.config import ExperimentConfig, OptimizerConfig, saved
from gm_jax.data import mapped_arrays, memory, pipeline, sources, tfds_sources
from gm_jax.data.prefetch import AHEAD, Prefetch
from gm_jax.errors import UserError
from gm_jax.evaluation.results import Record
from gm_jax.recipes.run_length import resolved
from gm_jax.runner import conclusion, draw, measure, resume, terminal, trackers
from gm_jax.runner.folder import Folder, record_versions
from gm_jax.runner.recorder import NullRecorder, Recorder, RunRecorder
from gm_jax.runner.run import NOTHING, Given, Run, assemble, check_data
from gm_jax.training import early_stopping, loop, multihost, parallel
from gm_jax.training.checkpoint import Checkpointer
from gm_jax.training.metrics import NonFiniteError
from gm_jax.training.state import TrainState, check_finite, check_size

_STOPPED_IN_EVALUATION = (
    "stopped while evaluating; the training is complete and saved: the same command repeats the evaluation"
)


def run_to_its_end(module: str, config: ExperimentConfig, workdir: Path, cluster: ClusterConfig) -> None:
    """Trains the run in `workdir` to its end, evaluates it and draws its pictures: the whole of a command.

    Args:
        module: of the experiment.
        config: its configuration.
        workdir: the run's folder.
        cluster: how several processes find each other.
    """
    with processes.joined(cluster) as member:
        try:
            train_and_evaluate(module, config, workdir, member)
        except NonFiniteError as error:
            folder = Folder(workdir)
            kept = f"The checkpoints before it are kept in {folder.root}: train in another --workdir"
            if not folder.holds_checkpoint():
                kept = f"No checkpoint was saved before it: train in {folder.root} again,"
            remedy = "with a smaller learning rate, or smaller steps of its chains if the model has chains."
            print(f"error: {error}. {kept} {remedy}", file=sys.stderr)
            sys.exit(1)


def train_and_evaluate(
    module: str,
    config: ExperimentConfig,
    workdir: Path,
    member: processes.Member,
    *,
    given: Given = NOTHING,
    evaluate: bool = True,
) -> None:
    """Trains the run in `workdir` to its end, or until a signal stops it, and evaluates it.

    Args:
        module: of the experiment; empty if there is none.
        config: its configuration.
        workdir: the run's folder.
        member: this process among others.
        given: what a caller in Python has already.
        evaluate: whether to measure and to draw the best checkpoint at the end.

    Raises:
        NonFiniteError: training diverged; the checkpoints before it are kept.
    """
    with signals.deferred(), contextlib.ExitStack() as stack:
        run = _prepare(module, resolved(_with_data_dir(config)), Folder(workdir), stack, given)
        _report_cut(run)
        _report_lost_steps(run)
        stack.enter_context(run.folder.guarded())
        member.watch(run.folder.processes)
        step = train(run, member)
        if any(multihost.all_gather_json(signals.requested())):
            saved_there = "and saved; the same command resumes from there"
            _print_once(f"stopped at step {step} {saved_there if step else 'before anything was saved'}")
            return
        settings = run.config.train
        if step < settings.steps:
            _print_once(
                f"stopped early at step {step:,}: validation did not improve in {settings.patience} checkpoints "
                "(--train.patience)"
            )
        if evaluate and not multihost.broadcast(multihost.is_primary() and conclusion.show_again(run, last=step)):
            _conclude(run, member, step)


def _prepare(module: str, config: ExperimentConfig, folder: Folder, stack: contextlib.ExitStack, given: Given) -> Run:
    """Checks everything that can be refused before the first step; afterwards the folder is this run's, and locked."""
    run = multihost.all_or_none(functools.partial(_assemble_checked, config, folder, given))
    processes.check_same(saved.facts(config), module, data=run.spec.fingerprint)
    claim = functools.partial(_claim, module, run, stack) if multihost.is_primary() else _do_nothing
    identity = multihost.broadcast(multihost.all_or_none(claim))
    processes.share(folder.processes)
    return run._replace(identity=identity, command=module)


def _assemble_checked(config: ExperimentConfig, folder: Folder, given: Given) -> Run:
    resume.check_folder(folder, config)
    run = assemble(config, folder.root, resume.saved_run(folder), given)
    check_batch_size(run)
    trackers.check(run.config.train.tracker)
    # Before anything is written: refuses a network that cannot take these data, and chains that devices cannot share.
    run.check_model_state()
    return run


def _claim(module: str, run: Run, stack: contextlib.ExitStack) -> str:
    """Makes the folder this run's, locked until the stack closes, and returns the run's identity."""
    folder = run.folder
    folder.create()
    stack.enter_context(folder.locked())
    found = resume.saved_run(folder)
    if found is not None:
        check_data(run, found)
    elif folder.holds_run():
        print(f"{folder.root} holds a run without a checkpoint, which is started again")
        folder.remove_remains()
    identity = secrets.token_hex(16) if found is None else found.identity
    saved.save(folder.config, run.config.recipe, run.config, data=run.spec._asdict(), command=module, identity=identity)
    devices = [str(device) for device in jax.devices()]
    facts = {"devices": devices, "processes": jax.process_count(), "data": run.spec.fingerprint}
    record_versions(folder.versions, facts)
    return identity


def _report_cut(run: Run) -> None:
    """Prints how splits that the data do not ship were cut, and how many examples each split has."""
    if run.spec.cut is not None:
        sizes = ", ".join(f"{len(arrays['x']):,} {split}" for split, arrays in run.loaded.items())
        _print_once(f"{run.spec.name} does not ship all splits: {run.spec.cut} ({sizes})")


def _report_lost_steps(run: Run) -> None:
    """Prints how many of the last steps make no update, because gradients are accumulated over more of them."""
    optimizer = getattr(run.config, "optimizer", None)
    if not isinstance(optimizer, OptimizerConfig):
        return
    steps = int(run.experiment.model.objectives[-1].updates_before(run.config.train.steps))
    lost = steps % optimizer.accumulate_steps
    if lost:
        _print_once(
            f"the last {lost} of {steps} steps make no update: --optimizer.accumulate-steps "
            f"{optimizer.accumulate_steps} does not divide their number"
        )


def check_batch_size(run: Run) -> None:
    """Checks that the data can fill a batch, and the devices can share it.

    Raises:
        UserError: they cannot.
    """
    batch_size, num_examples = run.config.train.batch_size, len(run.loaded["train"]["x"])
    if batch_size > num_examples:
        raise UserError(
            f"--train.batch-size {batch_size} is more than the {num_examples} examples to train on: use at most "
            f"{num_examples}."
        )
    parallel.check_batch_size(batch_size, run.strategy)


def train(run: Run, member: processes.Member) -> int:
    """Trains from the latest undamaged checkpoint, or from the start; returns the step that was reached."""
    config, several = run.config.train, jax.process_count() > 1
    schedule = loop.make_schedule(
        num_steps=config.steps,
        steps_per_call=config.steps_per_call,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
    )
    if schedule.steps_per_call < config.steps_per_call:
        _print_once(
            f"--train.steps-per-call is lowered from {config.steps_per_call} to {schedule.steps_per_call}, "
            "which divides --train.steps, --train.log-every and --train.checkpoint-every"
        )
    step_fn = run.train_step(run.strategy)
    if several:
        step_fn = loop.counting_votes(step_fn, axis_name=run.strategy.axis_name)
    with Checkpointer(
        run.folder.checkpoints, keep_latest=config.keep_checkpoints, fingerprint=run.fingerprint, run=run.identity
    ) as checkpointer:
        abstract = run.abstract_state()
        check_size(abstract, memory.physical())
        restored = checkpointer.restore_latest(abstract)
        state = run.strategy.place(restored.state if restored is not None else run.initial_state())
        first = int(state.step)
        if first < config.steps:
            _print_once(terminal.header(run, step=first))
            if restored is not None:
                _print_once(f"resuming from step {first} of {config.steps}")
        steps = range(first, config.steps, schedule.steps_per_call)
        with (
            RunRecorder(run, first) if multihost.is_primary() else NullRecorder() as recorder,
            Prefetch(functools.partial(_placed, run, steps.step), steps, _calls_ahead(run)) as placed,
        ):
            training = _Training(run, member, checkpointer, recorder, placed, steps)
            state = loop.fit(state, run.strategy.compile(step_fn), training.batches, schedule, training.effects())
    return int(state.step)


def _calls_ahead(run: Run) -> int:
    """Returns how many calls ahead batches are made: none for data in the memory of CPUs, which train meanwhile."""
    in_memory = not any(mapped_arrays.is_mapped(array) for array in run.loaded["train"].values())
    return 0 if in_memory and jax.local_devices()[0].platform == "cpu" else AHEAD


def _placed(run: Run, count: int, step: int) -> Any:
    """Gathers this process's part of `count` batches from a step on, and places it on its devices."""
    config = run.config
    host = pipeline.train_batches(
        run.loaded["train"],
        config.train.batch_size,
        config.train.seed,
        step,
        count,
        run.strategy.shard,
        flip=config.data.flip,
    )
    return run.strategy.place_batches(host)


@dataclasses.dataclass(frozen=True)
class _Training:
    """The callbacks of the training loop: batches, validations, checkpoints and records.

    Attributes:
        run: what is trained.
        member: this process among others, to which every phase is announced.
        checkpointer: saves.
        recorder: records.
        placed: step -> the batches of the call that starts there, on the devices.
        steps: at which calls start; the first one compiles.
    """

    run: Run
    member: processes.Member
    checkpointer: Checkpointer
    recorder: Recorder
    placed: Callable[[int], Any]
    steps: range

    def effects(self) -> loop.Effects:
        """The methods below, as the loop takes them."""
        several = jax.process_count() > 1
        return loop.Effects(
            log=self.recorder.log,
            validate=self.validate,
            save=self.save,
            finished=self.stops_early,
            interrupted=_never if several else signals.requested,  # several processes vote
            tick=self.recorder.tick,
        )

    def batches(self, step: int) -> Any:
        """Returns the batches of a call that starts at a step, on the devices, with this process's vote to stop."""
        self.member.enter("reading data", step)
        start = time.perf_counter()
        batches = self.placed(step)
        self.recorder.waited(time.perf_counter() - start)
        if jax.process_count() > 1:
            votes = np.full((self.steps.step, jax.local_device_count()), signals.requested(), np.float32)
            batches = {**batches, **self.run.strategy.place_batches({loop.VOTES: votes})}
        self.member.enter("training" if step > self.steps.start else "compilation", step)
        return batches

    @functools.cached_property
    def _evaluate(self) -> Callable | None:
        log_prob = self.run.experiment.validation or self.run.experiment.model.log_prob
        return None if log_prob is None else measure.evaluator(self.run, log_prob, seed=self.run.config.train.seed)

    def validate(self, step: int, state: TrainState) -> float | None:
        """Returns the validation log-probability of a state, on every process; None for a model without one."""
        self.member.enter("validation", step)
        self._refuse_removed()
        state = parallel.everywhere(state)
        self.recorder.draw_samples(step, state)
        log_prob = None
        evaluate = self._evaluate
        if evaluate is not None:
            prepared, _ = measure.prepared(self.run, state, seed=self.run.config.train.seed, in_training=True)
            log_prob = evaluate(prepared, "validation").mean
            if not np.isfinite(log_prob):
                raise NonFiniteError(step, "validation log_prob", log_prob)
        self.recorder.record_validation(step, log_prob)
        # Process 0 also draws samples: the broadcast keeps the others from waiting for it in a train step.
        return multihost.broadcast(log_prob)

    def save(self, step: int, state: TrainState, validation: float | None) -> None:
        """Saves a checkpoint, with its validation if it may become the best one.

        Raises:
            NonFiniteError: the state is not finite; the metrics of its last step were, because they precede its update.
            UserError: the folder is gone, or the save before this one failed.
        """
        self.member.enter("saving", step)
        check_finite(step, parallel.local(state), self.run.initial_state)
        self._refuse_removed()
        self.recorder.sync()
        metric = validation if self.all_players_train(step) else None
        self.checkpointer.save(step, parallel.everywhere(state), metric=metric)

    def _refuse_removed(self) -> None:
        # Process 0 alone, which makes the files: a network file system may show them to the others a minute late.
        if multihost.is_primary():
            self.run.folder.refuse_removed()

    def all_players_train(self, step: int) -> bool:
        """Whether every player has begun to train: a model with an untrained part is never the best."""
        return all(objective.updates_before(step) > 0 for objective in self.run.experiment.model.objectives)

    def stops_early(self) -> bool:
        """Whether validation has stopped improving, as process 0 decides."""
        values = [value for step, value in self.recorder.validations() if self.all_players_train(step)]
        stops = early_stopping.is_out_of_patience(values, patience=self.run.config.train.patience)
        return multihost.broadcast(stops)


def _conclude(run: Run, member: processes.Member, last: int) -> None:
    """Evaluates the best checkpoint with all processes and draws with the first; all leave when both are done.

    A signal ends it in good order: a single process at once, several processes at the same batch, by votes.
    """
    try:
        member.enter("restoring", last)
        state, step = run.restore("best")
        with _progress(f"evaluating step {step:,} on the test split", measure.num_parts(run, "test")) as show:

            def before_batch(name: str) -> None:
                # A phase for each batch, and a name for each evaluation, whose first batch compiles.
                member.enter(f"evaluation of {name}", last)
                show(name)
                if any(multihost.all_gather_json(signals.requested())):
                    raise KeyboardInterrupt

            records = measure.measure_run(run, state, step, split="test", seed=0, before_batch=before_batch)
    except KeyboardInterrupt:
        _print_once(_STOPPED_IN_EVALUATION)
        return
    member.enter("drawing", last)
    write = functools.partial(_draw_and_write, run, state, records, last) if multihost.is_primary() else _do_nothing
    multihost.all_or_none(write)


def _progress(what: str, parts: int) -> contextlib.AbstractContextManager[terminal.Progress]:
    """Shows the progress of some work in the first process only."""
    return terminal.progress(what, parts) if multihost.is_primary() else contextlib.nullcontext(lambda name: None)


def _draw_and_write(run: Run, state: TrainState, records: list[Record], last: int) -> None:
    try:
        measure.write_results(run, records)
        with terminal.progress("drawing", draw.num_parts(run)) as show:
            pictures = draw.draw_pictures(run, state, seed=0, before=show)
        conclusion.note(run, records, pictures, last=last)
        measure.print_files(run, pictures)
    except KeyboardInterrupt:
        print(_STOPPED_IN_EVALUATION)


def _with_data_dir(config: ExperimentConfig) -> Any:
    """Returns the configuration with an absolute folder of data, for later commands in another place or shell."""
    name, folder = sources.located(config.data.name, config.data.dir)
    folder = folder or os.environ.get("TFDS_DATA_DIR")
    data = dataclasses.replace(config.data, name=name, dir=folder and tfds_sources.absolute_data_dir(folder))
    return saved.updated(config, {"data": data})


def _print_once(line: str) -> None:
    if multihost.is_primary():
        print(line)


def _do_nothing() -> None:
    pass


def _never() -> bool:
    return False
