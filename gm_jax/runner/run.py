"""A run put together: its data, its experiment, its folder; from a configuration or from the folder alone."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from gm_jax import recipes
from gm_jax.config import ExperimentConfig, saved
from gm_jax.config.saved import Saved
from gm_jax.data import pipeline, sources
from gm_jax.data.array_cache import Splits
from gm_jax.errors import UserError
from gm_jax.recipes import configs, legacy_configs, presets
from gm_jax.recipes.experiment import Experiment
from gm_jax.recipes.optimizers import make_average
from gm_jax.runner.folder import Folder, made_by
from gm_jax.training import model_state, parallel, state, step
from gm_jax.training.checkpoint import Checkpointer

EVAL_BATCH = 100

_LOG = logging.getLogger(__name__)


class Given(NamedTuple):
    """What a caller in Python has, in place of what a configuration names.

    Attributes:
        source: the data; None for those that the configuration names.
        build: (configuration, Spec of the data) -> Experiment; None for the configuration's recipe.
    """

    source: sources.Source | None = None
    build: Callable[[Any, sources.Spec], Experiment] | None = None


NOTHING = Given()


class Run(NamedTuple):
    """Everything that a verb works with.

    Attributes:
        config: the experiment's configuration.
        spec: shape, levels and classes of the data.
        splits: the data; None if the run was opened without them.
        experiment: what the recipe made of configuration and spec.
        strategy: where the step runs.
        folder: the run's folder.
        identity: which its checkpoints carry, so that those of other runs are refused; empty for a run of an earlier
            version.
        command: module of the command that made it, e.g. "experiments.vae"; empty if it is not known.
    """

    config: ExperimentConfig
    spec: sources.Spec
    splits: Splits | None
    experiment: Experiment
    strategy: parallel.Strategy
    folder: Folder
    identity: str = ""
    command: str = ""

    @property
    def loaded(self) -> Splits:
        """The data of a run that was opened with them."""
        if self.splits is None:
            raise ValueError("the run was opened without its data: use reopen(..., with_data=True)")
        return self.splits

    @property
    def facts(self) -> dict[str, Any]:
        """What every result of the run must state: of its data, and of its preset if it has one."""
        return {**self.spec.facts, **presets.facts(self.config)}

    @property
    def fingerprint(self) -> dict[str, str]:
        """The data and devices that a checkpoint must share with this run for the run to resume from it."""
        facts = {"data": self.spec.fingerprint}
        if self.config.train.parallel == "pmap":
            facts["devices"] = f"pmap over {self.strategy.num_shards}"  # each device draws its own noise
        return facts

    def initial_state(self) -> state.TrainState:
        """Returns the state at step 0."""
        train = self.config.train
        return self._create(pipeline.train_batch(self.loaded["train"], train.batch_size, train.seed, 0))

    def abstract_state(self) -> state.TrainState:
        """Returns the shapes and dtypes of the state, at no cost and without the data."""
        return jax.eval_shape(self._create, abstract_batch(self.spec, self.config.train.batch_size))

    def restore(self, which: Literal["best", "latest"] | int = "best") -> tuple[state.TrainState, int]:
        """Returns the state of a checkpoint, for evaluation, and its step. The folder is not changed.

        Args:
            which: the best on validation, the latest, or the one of a step.
        Raises:
            UserError: there is no such checkpoint, or all are damaged.
        """
        return self._restore(which, self.abstract_state())

    def restore_for_use(self, which: Literal["best", "latest"] | int) -> tuple[state.TrainState, int]:
        """Returns what `restore` does without the optimiser's state, which only training needs.

        A caller in Python may have trained with an optimiser that the folder does not hold.
        """
        return self._restore(which, self.abstract_state()._replace(opt_state={}), leave_out="opt_state")

    def _restore(
        self, which: Literal["best", "latest"] | int, like: state.TrainState, *, leave_out: str | None = None
    ) -> tuple[state.TrainState, int]:
        if which not in ("best", "latest") and not isinstance(which, int):
            raise UserError(f"there is no checkpoint {which!r}: choose 'best', 'latest' or a number of steps.")
        # Without a fingerprint: a folder's data were checked when it was opened, and any devices may evaluate.
        with Checkpointer(
            self.folder.checkpoints, run=self.identity, read_only=True, leave_out=leave_out
        ) as checkpointer:
            if isinstance(which, int):
                restored = checkpointer.restore_step(like, which)
            else:
                restored = checkpointer.restore_best(like) if which == "best" else checkpointer.restore_latest(like)
        if restored is None:
            raise UserError(f"{self.folder.root} holds no checkpoint yet: train there first.")
        return self.strategy.place(restored.state), restored.step

    def _create(self, batch: Any) -> state.TrainState:
        train = self.config.train
        # A key of its own, so that the initialisation shares no bits with the noise of the steps.
        key = jax.random.fold_in(jax.random.key(train.seed), np.uint32(0xFFFFFFFF))
        averages = make_average(self.config) is not None
        return state.create(self.experiment.model, self.experiment.optimizers, key, batch, ema=averages)

    def train_step(self, strategy: parallel.Strategy) -> step.TrainStep:
        """Returns the step that the configuration describes, of one device; nothing is compiled yet.

        Args:
            strategy: that will run it; for a plan not the run's own.
        """
        train = self.config.train
        return step.make_train_step(
            self.experiment.model,
            self.experiment.optimizers,
            seed=train.seed,
            ema_decay=make_average(self.config),
            axis_name=strategy.axis_name,
            spread=strategy.spread,
        )

    def check_model_state(self) -> None:
        """Checks that the devices can share the rows of the model state, such as chains.

        Raises:
            UserError: they cannot.
        """
        devices = 1 if self.strategy.axis_name is None else self.strategy.num_shards
        model_state.check_rows(
            self.abstract_state().model_state,
            self.experiment.model.sync,
            batch_size=self.config.train.batch_size,
            devices=devices,
        )

    def fixed_examples(self) -> np.ndarray:
        """Returns the validation examples that pictures show, the same at every step."""
        return self.loaded["validation"]["x"][:EVAL_BATCH]


def abstract_batch(spec: sources.Spec, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes and dtypes of a batch: levels are uint8, points float32, labels and tokens int32."""
    x = jax.ShapeDtypeStruct((batch_size, *spec.shape), np.float32 if spec.levels is None else np.uint8)
    labels = {} if spec.num_classes is None else {"label": jax.ShapeDtypeStruct((batch_size,), np.int32)}
    tokens = {} if spec.tokens is None else {"tokens": jax.ShapeDtypeStruct((batch_size, spec.tokens), np.int32)}
    return {"x": x, **labels, **tokens}


def assemble(config: ExperimentConfig, workdir: Path, found: Saved | None = None, given: Given = NOTHING) -> Run:
    """Loads the data and builds the experiment.

    Args:
        config: the configuration.
        workdir: the folder of the run.
        found: what the folder holds, so that a run that is resumed reads its version of the data; None for a new run.
        given: what a caller in Python has already.
    """
    source = given.source or _load(config, workdir, found, config.data.dir)
    return _put_together(config, workdir, *source, given)


def reopen(
    workdir: Path | str,
    *,
    config_type: type[ExperimentConfig] | None = None,
    data_dir: str | None = None,
    with_data: bool = True,
    changes: Mapping[str, Any] = MappingProxyType({}),
    given: Given = NOTHING,
) -> Run:
    """Opens the run in a folder, for a verb; `trained_run.open_run` is for Python.

    Args:
        workdir: the folder.
        config_type: the type of its configuration; None for the one that the folder names, which must be a recipe of
            gm_jax. A recipe outside gm_jax is given here, because a data file must not decide what is imported.
        data_dir: where the data are now, if not where the run found them.
        with_data: whether to load them; otherwise their Spec is read from the folder.
        changes: values for fields that are marked `Measuring` or `Sampling`, instead of the run's; a dict changes
            fields of a section.
        given: what a caller in Python has already.

    Raises:
        UserError: the folder holds no run, a run of another recipe, or a run on other data.
    """
    workdir = Path(workdir).expanduser()
    found = load_saved(workdir)
    config_type = config_type or configs.RECIPES.get(found.recipe)
    if config_type is None:
        raise UserError(
            f"{workdir} holds a run of {found.recipe}, which is not in gm_jax: give its config_type, the type of its "
            "configuration."
        )
    if found.recipe != config_type.recipe:
        raise UserError(f"{workdir} holds a run of another experiment: open it with {found.opener}.")
    found = in_todays_form(found, config_type, workdir)
    config = saved.updated(_checked(config_type, found, workdir), changes)
    if not with_data:
        run = _put_together(config, workdir, saved_spec(found, workdir), None, given)
        return run._replace(identity=found.identity, command=found.command)
    source = given.source or _load(config, workdir, found, data_dir or config.data.dir)
    run = _put_together(config, workdir, *source, given)
    check_data(run, found)
    return run._replace(identity=found.identity, command=found.command)


def _checked(config_type: type[ExperimentConfig], found: Saved, workdir: Path) -> ExperimentConfig:
    config = saved.from_dict(config_type, found.config)
    try:
        saved.check(config)
    except UserError as error:
        raise UserError(f"{Folder(workdir).config} is damaged: {error}") from None
    return config


def changed(run: Run, changes: Mapping[str, Any], given: Given = NOTHING) -> Run:
    """Returns a run whose configuration has other values, such as those of its sampler; the experiment is built again.

    Raises:
        UserError: there is no such field, or its value is out of range.
    """
    config = saved.updated(run.config, changes)
    saved.check(config)
    other = _put_together(config, run.folder.root, run.spec, run.splits, given)
    return other._replace(identity=run.identity, command=run.command)


def load_saved(workdir: Path) -> Saved:
    """Reads a folder's config.json, also of the first format.

    Raises:
        UserError: it is missing or damaged, or used a field that no longer exists.
    """
    return legacy_configs.converted(saved.load(Folder(workdir).config))


def in_todays_form(found: Saved, config_type: type[ExperimentConfig], workdir: Path) -> Saved:
    """Returns what a folder's config.json holds, completed with fields that are younger than the run.

    Raises:
        UserError: fields are missing, unknown or of another type, as in a run of another version.
    """
    values, added = saved.with_added_fields(config_type, found.config)
    saved.from_dict(config_type, values, made_by=made_by(Folder(workdir).versions))
    if added:
        _LOG.warning("the run in %s is older than some settings; as then: %s", workdir, "; ".join(added))
    return found._replace(config=values)


def saved_spec(found: Saved, workdir: Path) -> sources.Spec:
    """Returns the Spec of the data that a run was started on.

    Raises:
        UserError: the folder's is damaged.
    """
    try:
        spec = sources.Spec(**found.data)
    except TypeError:
        spec = None
    if spec is None or not _is_spec(spec):
        raise UserError(f"{Folder(workdir).config} does not describe the run's data: the configuration is damaged.")
    return spec._replace(shape=tuple(spec.shape))


def _is_spec(spec: sources.Spec) -> bool:
    """Returns whether a Spec that was read from a file has the right types."""

    def is_number(value: object, low: int) -> bool:
        return type(value) is int and low <= value < 2**31

    return (
        isinstance(spec.name, str)
        and isinstance(spec.fingerprint, str)
        and (spec.version is None or isinstance(spec.version, str))
        and isinstance(spec.shape, list)
        and 0 < len(spec.shape) <= 3
        and all(is_number(size, 1) for size in spec.shape)
        and (spec.levels is None or (is_number(spec.levels, 2) and spec.levels <= 256))
        and (spec.num_classes is None or is_number(spec.num_classes, 0))
        and (spec.cut is None or isinstance(spec.cut, str))
        and (spec.size is None or is_number(spec.size, 1))
    )


def check_data(run: Run, found: Saved) -> None:
    """Checks that the data are those that the folder's run was started on.

    Raises:
        UserError: they have the same name and another fingerprint.
    """
    before = saved_spec(found, run.folder.root)
    if before.fingerprint != run.spec.fingerprint:
        raise UserError(
            f"{run.folder.root} holds a run on other data of the name {run.spec.name}: choose another --workdir.\n"
            f"fingerprint: {before.fingerprint} (saved) != {run.spec.fingerprint}"
        )


def _load(config: ExperimentConfig, workdir: Path, found: Saved | None, data_dir: str | None) -> sources.Source:
    if found is None:
        return sources.load(config.data.name, data_dir, config.data.size)
    return sources.load_again(config.data.name, saved_spec(found, workdir), data_dir, config.data.size)


def _put_together(
    config: ExperimentConfig, workdir: Path, spec: sources.Spec, splits: Splits | None, given: Given
) -> Run:
    strategy = parallel.pmap() if config.train.parallel == "pmap" else parallel.jit()
    if config.data.flip and len(spec.shape) != 3:
        raise UserError(f"--data.flip mirrors images, and {spec.name} is not made of images: leave it out.")
    if config.data.flip and spec.tokens is not None:
        raise UserError(f"--data.flip would make the captions of {spec.name} wrong: leave it out.")
    experiment = (given.build or recipes.build)(config, spec)
    if splits is not None and experiment.uses_labels:
        sources.check_labels(spec, splits)
    return Run(config, spec, splits, experiment, strategy, Folder(workdir))
