"""Where metrics and samples go beside metrics.jsonl: TensorBoard, Weights & Biases or MLflow, by --train.tracker.

A tracker is a convenience: a failure in it costs one warning, and the run goes on. Weights & Biases and MLflow are
imported only if they are asked for. Their own environment variables choose the project and the server: WANDB_PROJECT,
WANDB_MODE=offline, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME. A run that is resumed goes on in its old record, and
repeats the steps between its last checkpoint and where it was stopped.
"""

import functools
import importlib
import importlib.util
import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from gm_jax.config import saved
from gm_jax.errors import UserError
from gm_jax.runner.events import Events
from gm_jax.runner.run import Run

_PROJECT = "gm_jax"
_IDENTITY = "gm_jax.run"  # MLflow's tag that finds a run again
_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow"}
_LOG = logging.getLogger("gm_jax")


class Tracker(Protocol):
    """A record of numbers and pictures over steps."""

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Records a number."""
        ...

    def add_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Records a picture, [H, W, 3] uint8."""
        ...

    def close(self) -> None:
        """Ends the record."""
        ...


def check(name: str) -> None:
    """Checks that the package of a tracker is installed.

    Raises:
        UserError: it is not.
    """
    package = _PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise UserError(
            f"--train.tracker {name} needs the package {package}: pip install {package}, or leave the flag out."
        )


def start(run: Run, step: int) -> Tracker:
    """Starts the tracker that the configuration names.

    Args:
        run: what is trained.
        step: where training starts; TensorBoard drops later events of a run that died.
    Raises:
        UserError: the tracker's package is missing, or it cannot start.
    """
    name = run.config.train.tracker
    if name == "tensorboard":
        return Events(run.folder.tensorboard, purge_step=step + 1)
    if name == "none":
        return Nowhere()
    check(name)
    try:
        return (WandB if name == "wandb" else MLflow)(run)
    except Exception as error:  # of a library's own types: not logged in, no network, a server's refusal
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        offline = " or set WANDB_MODE=offline" if name == "wandb" else ""
        raise UserError(f"{name} cannot start ({reason}): repair it{offline}, or leave --train.tracker out.") from error


class Nowhere:
    """Records nothing; metrics.jsonl has all numbers."""

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Does nothing."""

    def add_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def _lossy(method: Callable[..., None]) -> Callable[..., None]:
    """Makes a method that loses its record if the library fails, with one warning for the run."""

    @functools.wraps(method)
    def call(self: Any, *args: Any) -> None:
        try:
            method(self, *args)
        except Exception as error:
            if not self.warned:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                _LOG.warning(f"some records of {type(self).__name__} are lost: {reason}")
            self.warned = True

    return call


class WandB:
    """Weights & Biases: a run with the identity of ours, in the run's folder while it is offline.

    Attributes:
        warned: whether a failure was reported.
    """

    def __init__(self, run: Run):
        self.warned = False
        self._wandb: Any = importlib.import_module("wandb")
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=run.identity,
            name=run.folder.root.name,
            dir=str(run.folder.root),
            config=saved.facts(run.config),
            resume="allow",
            settings=self._wandb.Settings(console="off"),  # it would wrap the progress bar
        )
        # Steps of its own would refuse those that a resumed run repeats.
        self._run.define_metric("*", step_metric="step")

    @_lossy
    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Records a number."""
        self._run.log({name: value, "step": step})

    @_lossy
    def add_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Records a picture, [H, W, 3] uint8."""
        self._run.log({name: self._wandb.Image(image), "step": step})

    @_lossy
    def close(self) -> None:
        """Ends the record, after what is not sent yet is sent."""
        self._run.finish()


class MLflow:
    """MLflow: a run that a tag with the identity of ours finds again.

    Attributes:
        warned: whether a failure was reported.
    """

    def __init__(self, run: Run):
        self.warned = False
        mlflow: Any = importlib.import_module("mlflow")
        self._client = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        before = self._client.search_runs([number], f"tags.`{_IDENTITY}` = '{run.identity}'")
        if before:
            self._id = before[0].info.run_id
            self._client.set_terminated(self._id, "RUNNING")
            return
        self._id = self._client.create_run(
            number, run_name=run.folder.root.name, tags={_IDENTITY: run.identity}
        ).info.run_id
        for field, value in saved.facts(run.config).items():
            self._client.log_param(self._id, field, value)

    @_lossy
    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Records a number."""
        self._client.log_metric(self._id, name, value, step=step)

    @_lossy
    def add_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Records a picture, [H, W, 3] uint8."""
        self._client.log_image(self._id, image, key=name, step=step)

    @_lossy
    def close(self) -> None:
        """Ends the record."""
        self._client.set_terminated(self._id)
