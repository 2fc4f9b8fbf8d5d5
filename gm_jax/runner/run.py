"""A run put together: its data, its experiment, its folder; from a command line or from the folder alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from gm_jax.data import pipeline, sources
from gm_jax.errors import UserError
from gm_jax.runner import config as config_lib
from gm_jax.runner.experiment import Experiment
from gm_jax.runner.folder import Folder
from gm_jax.training import parallel, state
from gm_jax.training.checkpoint import Checkpointer

EVAL_BATCH = 100


class Run(NamedTuple):
    """Everything that a verb works with.

    Attributes:
        config: the experiment's configuration.
        source: the data.
        experiment: what `build` made of both.
        strategy: where the step runs.
        folder: where everything lies.
    """

    config: Any
    source: sources.Source
    experiment: Experiment
    strategy: parallel.Strategy
    folder: Folder

    @property
    def fingerprint(self) -> dict[str, str]:
        """What a checkpoint must have been made with for this run to go on from it."""
        facts = {"data": self.source.spec.fingerprint}
        if self.config.train.parallel == "pmap":
            facts["devices"] = f"pmap over {self.strategy.num_shards}"  # each device draws its own noise
        return facts

    def initial_state(self) -> state.TrainState:
        """The state at step 0."""
        train = self.config.train
        batch = pipeline.train_batch(self.source.splits["train"], train.batch_size, train.seed, 0)
        # A key of its own, so that the initialisation shares no bits with the noise of the steps.
        key = jax.random.fold_in(jax.random.key(train.seed), np.uint32(0xFFFFFFFF))
        return state.create(self.experiment.model, self.experiment.optimizers, key, batch, ema=train.ema_decay > 0)

    def abstract_state(self) -> state.TrainState:
        """The shapes and dtypes of the state, at no cost."""
        return jax.eval_shape(self.initial_state)

    def fixed_examples(self) -> np.ndarray:
        """The validation examples that pictures show, the same at every step."""
        return self.source.splits["validation"]["x"][:EVAL_BATCH]


def assemble(config: Any, build: Callable, workdir: Path, *, data_dir: str | None = None) -> Run:
    """Load the data and build the experiment."""
    source = sources.load(config.data.name, data_dir or config.data.dir)
    strategy = parallel.pmap() if config.train.parallel == "pmap" else parallel.jit()
    return Run(config, source, build(config, source.spec), strategy, Folder(workdir))


def reopen(module: str, config_type: type, build: Callable, workdir: Path, *, data_dir: str | None = None) -> Run:
    """The run that a folder holds.

    Raises:
        UserError: the folder holds no run, or one of another experiment or of other data.
    """
    saved = config_lib.load(Folder(workdir).config)
    if saved.experiment != module:
        raise UserError(f"{workdir} holds a run of {saved.experiment}:\npython -m {saved.experiment} can open it.")
    run = assemble(config_lib.from_dict(config_type, saved.config), build, workdir, data_dir=data_dir)
    check_data(run, saved)
    return run


def check_data(run: Run, saved: config_lib.Saved) -> None:
    """Refuse data other than those that the folder's run was begun on.

    Raises:
        UserError: they have the same name and another fingerprint.
    """
    spec = run.source.spec
    if saved.data != spec.fingerprint:
        raise UserError(
            f"{run.folder.root} holds a run on other data: {spec.name} is not what it was.\n"
            f"fingerprint: {saved.data} (saved) != {spec.fingerprint}"
        )


def restore(run: Run, which: Literal["best", "latest"]) -> tuple[state.TrainState, int]:
    """The state of a checkpoint, for evaluation; the folder is not changed.

    Raises:
        UserError: there is none, or none is whole.
    """
    # No fingerprint: a folder's data were checked when it was opened, and any number of devices may evaluate.
    with Checkpointer(run.folder.checkpoints, read_only=True) as checkpointer:
        like = run.abstract_state()
        restored = checkpointer.restore_best(like) if which == "best" else checkpointer.restore_latest(like)
    if restored is None:
        raise UserError(f"{run.folder.root} holds no checkpoint yet: train there first.")
    return run.strategy.place(restored.state), restored.step
