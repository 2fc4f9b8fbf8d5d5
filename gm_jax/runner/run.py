"""A run put together: its data, its experiment, its folder; from a command line or from the folder alone."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from gm_jax.data import pipeline, sources
from gm_jax.data.array_cache import Splits
from gm_jax.errors import UserError
from gm_jax.runner import config as config_lib
from gm_jax.runner.experiment import Experiment
from gm_jax.runner.folder import Folder
from gm_jax.training import parallel, state, step
from gm_jax.training.checkpoint import Checkpointer

EVAL_BATCH = 100


class Run(NamedTuple):
    """Everything that a verb works with.

    Attributes:
        config: the experiment's configuration.
        spec: what is known of the data.
        splits: the data; None where a verb needs none.
        experiment: what `build` made of configuration and spec.
        strategy: where the step runs.
        folder: where everything lies.
    """

    config: Any
    spec: sources.Spec
    splits: Splits | None
    experiment: Experiment
    strategy: parallel.Strategy
    folder: Folder

    @property
    def fingerprint(self) -> dict[str, str]:
        """What a checkpoint must have been made with for this run to go on from it."""
        facts = {"data": self.spec.fingerprint}
        if self.config.train.parallel == "pmap":
            facts["devices"] = f"pmap over {self.strategy.num_shards}"  # each device draws its own noise
        return facts

    def initial_state(self) -> state.TrainState:
        """The state at step 0."""
        train = self.config.train
        return self._create(pipeline.train_batch(self.splits["train"], train.batch_size, train.seed, 0))

    def abstract_state(self) -> state.TrainState:
        """The shapes and dtypes of the state, at no cost and without the data."""
        return jax.eval_shape(self._create, abstract_batch(self.spec, self.config.train.batch_size))

    def _create(self, batch: Any) -> state.TrainState:
        train = self.config.train
        # A key of its own, so that the initialisation shares no bits with the noise of the steps.
        key = jax.random.fold_in(jax.random.key(train.seed), np.uint32(0xFFFFFFFF))
        return state.create(self.experiment.model, self.experiment.optimizers, key, batch, ema=train.ema_decay > 0)

    def train_step(self) -> step.TrainStep:
        """The step that the configuration describes, of one device; nothing is compiled yet."""
        train = self.config.train
        return step.make_train_step(
            self.experiment.model,
            self.experiment.optimizers,
            seed=train.seed,
            ema_decay=train.ema_decay or None,
            axis_name=self.strategy.axis_name,
        )

    def fixed_examples(self) -> np.ndarray:
        """The validation examples that pictures show, the same at every step."""
        return self.splits["validation"]["x"][:EVAL_BATCH]


def abstract_batch(spec: sources.Spec, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and dtypes of a batch: levels are uint8, points float32, labels int32."""
    x = jax.ShapeDtypeStruct((batch_size, *spec.shape), np.float32 if spec.levels is None else np.uint8)
    labels = {} if spec.num_classes is None else {"label": jax.ShapeDtypeStruct((batch_size,), np.int32)}
    return {"x": x, **labels}


def assemble(config: Any, build: Callable, workdir: Path) -> Run:
    """Load the data and build the experiment."""
    return _put_together(config, build, workdir, *sources.load(config.data.name, config.data.dir))


def reopen(
    module: str,
    config_type: type,
    build: Callable,
    workdir: Path,
    *,
    data_dir: str | None = None,
    with_data: bool = True,
    anew: Mapping[str, Any] = MappingProxyType({}),
) -> Run:
    """The run that a folder holds.

    Args:
        module: the experiment's.
        config_type: the experiment's.
        build: the experiment's.
        workdir: the folder.
        data_dir: where the data lie now, if not where the run found them.
        with_data: whether to load them; else their Spec is what the folder says.
        anew: values of fields that are marked `Measuring`, in place of the run's.

    Raises:
        UserError: the folder holds no run, or one of another experiment or of other data.
    """
    saved = config_lib.load(Folder(workdir).config)
    if saved.experiment != module:
        raise UserError(f"{workdir} holds a run of {saved.experiment}:\npython -m {saved.experiment} can open it.")
    config = dataclasses.replace(config_lib.from_dict(config_type, saved.config), **anew)
    if not with_data:
        return _put_together(config, build, workdir, saved_spec(saved, workdir), None)
    run = _put_together(config, build, workdir, *sources.load(config.data.name, data_dir or config.data.dir))
    check_data(run, saved)
    return run


def saved_spec(saved: config_lib.Saved, workdir: Path) -> sources.Spec:
    """The Spec of the data that a run was begun on.

    Raises:
        UserError: the folder's is damaged.
    """
    try:
        spec = sources.Spec(**saved.data)
        return spec._replace(shape=tuple(spec.shape))
    except TypeError:
        raise UserError(f"{Folder(workdir).config} does not say what the run's data are, or is damaged.") from None


def check_data(run: Run, saved: config_lib.Saved) -> None:
    """Refuse data other than those that the folder's run was begun on.

    Raises:
        UserError: they have the same name and another fingerprint.
    """
    before = saved_spec(saved, run.folder.root)
    if before.fingerprint != run.spec.fingerprint:
        raise UserError(
            f"{run.folder.root} holds a run on other data: {run.spec.name} is not what it was.\n"
            f"fingerprint: {before.fingerprint} (saved) != {run.spec.fingerprint}"
        )


def _put_together(config: Any, build: Callable, workdir: Path, spec: sources.Spec, splits: Splits | None) -> Run:
    strategy = parallel.pmap() if config.train.parallel == "pmap" else parallel.jit()
    return Run(config, spec, splits, build(config, spec), strategy, Folder(workdir))


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
