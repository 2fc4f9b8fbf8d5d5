"""The whole training loop as one call from Python: progress, checkpoints, resuming, evaluation.

run = gm_jax.train(family, data=x, workdir="runs/mine", train={"steps": 2_000}, optimizer={"learning_rate": 1e-3})
"""

import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import optax

from gm_jax import recipes
from gm_jax.cluster import processes
from gm_jax.cluster.config import ClusterConfig
from gm_jax.config import ExperimentConfig, saved
from gm_jax.data import toy
from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.recipes.configs import RECIPES, OwnModelConfig
from gm_jax.recipes.experiment import Experiment
from gm_jax.recipes.own_model import own_experiment
from gm_jax.runner import session
from gm_jax.runner.arguments import as_source
from gm_jax.runner.run import Given
from gm_jax.runner.trained_run import TrainedRun, open_run

Optimizer = optax.GradientTransformation


def train(
    experiment: Any,
    data: Any = None,
    workdir: Path | str = "",
    *,
    optimizer: Optimizer | Mapping[str, Any] | Any = None,
    evaluate: bool = True,
    data_name: str = "arrays",
    data_size: int | None = None,
    **settings: Any,
) -> TrainedRun:
    """Trains the run in a folder to its end, or resumes it; Ctrl-C saves and stops, and the same call resumes.

    Args:
        experiment: what to train: a family with networks of your own, such as `models.vae.VAE`; a `types.Model`; a
            configuration of `recipes.configs`; or a module with a CONFIG, such as `experiments.vae`.
        data: the name of a source, as --data.name has it; or x, (x, label), or a mapping of arrays, see `data.arrays`;
            or a `Source`. None for the data that the configuration names.
        workdir: the run's folder.
        optimizer: an optax transformation, for every player; a mapping player -> transformation; or fields of the
            configuration's optimiser, e.g. {"learning_rate": 1e-3}. A folder does not hold optax transformations: when
            you resume, give the same.
        evaluate: whether to measure and to draw the best checkpoint at the end.
        data_name: how results name your arrays.
        data_size: rows and columns to which the centre of every image is resized; None to leave them.
        **settings: fields of the configuration, e.g. train={"steps": 2_000, "batch_size": 64, "ema_decay": 0.999}.

    Returns:
        The run at its best checkpoint, or at its latest one if it was stopped.

    Raises:
        UserError: the data do not fit, a field is unknown or out of range, or the folder holds another run.
        training.metrics.NonFiniteError: training diverged; the checkpoints before it are kept.
    """
    if isinstance(experiment, str):
        raise UserError(_no_name(experiment))
    config, command = getattr(experiment, "CONFIG", experiment), ""
    if isinstance(experiment, ModuleType):
        command = experiment.__name__
    if isinstance(data, str) and data.startswith(toy.PREFIX):
        config = getattr(experiment, "POINTS", config)
    own = None if hasattr(config, "recipe") else config
    config = OwnModelConfig() if own is not None else config
    transformations, fields = _as_optimizer(optimizer)
    changes = {**settings, **({"optimizer": fields} if fields is not None else {})}
    source = None if data is None or isinstance(data, str) else as_source(data, name=data_name, size=data_size)
    if data is not None:
        name = data if source is None else source.spec.name
        size = data_size if source is None else source.spec.size
        changes["data"] = {"name": name, "size": size}
    config = saved.updated(config, changes)
    saved.check(config)
    folder = _checked_folder(workdir)
    given = Given(source, functools.partial(_build, own, transformations))
    with processes.joined(ClusterConfig()) as member:
        session.train_and_evaluate(
            command, cast(ExperimentConfig, config), folder, member, given=given, evaluate=evaluate
        )
    return open_run(folder, model=own, config_type=type(cast(ExperimentConfig, config)), data=source)


def _no_name(name: str) -> str:
    """Returns what to give in place of the name of an experiment or of a recipe."""
    known = {recipe.partition(":build_")[2]: config.__name__ for recipe, config in RECIPES.items()}
    near = difflib.get_close_matches(name.rpartition(".")[2].lower(), known, n=1, cutoff=0.0)
    config = known[near[0]]
    return (
        f"{name!r} is only a name: give the configuration, gm_jax.recipes.configs.{config}(train=TrainConfig(), "
        "optimizer=OptimizerConfig());\nor, in the clone, the module, import experiments.NAME; or a family with your "
        "networks, e.g. models.vae.VAE."
    )


def _build(own: Any, transformations: Any, config: ExperimentConfig, spec: Spec) -> Experiment:
    """Builds the experiment of a configuration or of a model made in Python, with the optimisers that are given."""
    experiment = recipes.build(config, spec) if own is None else own_experiment(own, cast(Any, config), spec)
    if transformations is None:
        return experiment
    players = [objective.wrt for objective in experiment.model.objectives]
    if isinstance(transformations, Optimizer):
        transformations = dict.fromkeys(players, transformations)
    if sorted(transformations) != sorted(players):
        raise UserError(
            f"optimizer is given for {', '.join(sorted(transformations))}: give one for {', '.join(players)}."
        )
    return experiment._replace(optimizers=transformations)


def _as_optimizer(optimizer: Any) -> tuple[Any, Any]:
    """Returns (transformations, fields of the configuration's optimiser); None for what is not given."""
    if isinstance(optimizer, Optimizer):
        return optimizer, None
    if isinstance(optimizer, Mapping) and any(isinstance(value, Optimizer) for value in optimizer.values()):
        return optimizer, None
    return None, optimizer


def _checked_folder(workdir: Path | str) -> Path:
    if not str(workdir):
        raise UserError("give the folder of the run: gm_jax.train(..., workdir='runs/NAME').")
    return Path(workdir).expanduser()
