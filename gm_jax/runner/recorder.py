"""Output of a run while it trains: metrics, a tracker's record, samples over time, the progress bar."""

import logging
import time
from typing import Protocol, Self

import numpy as np

from gm_jax.data import mapped_arrays
from gm_jax.evaluation import results
from gm_jax.plotting import images
from gm_jax.runner import draw, measure, terminal, trackers
from gm_jax.runner.run import Run
from gm_jax.training.metrics import MetricsLog
from gm_jax.training.state import TrainState
from gm_jax.types import Likelihood

_IMAGES, _POINTS = 64, 1_000  # samples over time
_MOST_WAITING = 0.02  # of the time, without a remark
_LOG = logging.getLogger("gm_jax")


class Recorder(Protocol):
    """The progress reports of training, as a context that closes its files at the end."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def log(self, step: int, values: dict[str, float]) -> None:
        """Records the training metrics of a step."""
        ...

    def draw_samples(self, step: int, state: TrainState) -> None:
        """Records samples of a state, and what is counted on them."""
        ...

    def record_validation(self, step: int, log_prob: float | None) -> None:
        """Records the validation of a step; None for a model without a log-probability."""
        ...

    def validations(self) -> list[tuple[int, float]]:
        """Returns (step, log-probability) of every validation of the run so far, also before it was resumed."""
        ...

    def sync(self) -> None:
        """Waits until the record is on the disk: a checkpoint that is saved afterwards never outruns it."""
        ...

    def waited(self, seconds: float) -> None:
        """Counts time in which the loop waited for a batch."""
        ...

    def tick(self, step: int) -> None:
        """Moves the progress bar."""
        ...


class NullRecorder:
    """Records nothing: for every process but the first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def log(self, step: int, values: dict[str, float]) -> None:
        """Does nothing."""

    def draw_samples(self, step: int, state: TrainState) -> None:
        """Does nothing."""

    def record_validation(self, step: int, log_prob: float | None) -> None:
        """Does nothing."""

    def validations(self) -> list[tuple[int, float]]:
        """Returns nothing: the first process, which has the log, decides."""
        return []

    def sync(self) -> None:
        """Does nothing."""

    def waited(self, seconds: float) -> None:
        """Does nothing."""

    def tick(self, step: int) -> None:
        """Does nothing."""


class RunRecorder:
    """Records into a run's folder, and shows a progress bar."""

    def __init__(self, run: Run, step: int):
        train = run.config.train
        self._run = run
        self._events = trackers.start(run, step)  # first, because it may refuse
        self._log = MetricsLog(run.folder.metrics, step=step)
        self._bar = terminal.bar(train.steps, initial=step, unit="step")
        self._bar.set_postfix_str("compiling")
        self._loss, self._validation, self._since, self._waited = "", "", (step, time.perf_counter()), 0.0
        self._likelihood: Likelihood | None = None
        self._warned = False
        self._is_on_disk = mapped_arrays.is_mapped(run.loaded["train"]["x"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        self._log.close()
        self._events.close()

    def log(self, step: int, values: dict[str, float]) -> None:
        """Records the training metrics of a step, and the speed since the last ones."""
        self._log.write(step, "train", values)
        for name, value in values.items():
            self._events.add_scalar(f"train/{name}", value, step)
        first, then = self._since
        now = time.perf_counter()
        per_second = (step - first) / max(now - then, 1e-9)
        speed = per_second * self._run.config.train.batch_size
        waiting = self._waited / max(now - then, 1e-9)
        self._since, self._waited = (step, now), 0.0
        self._events.add_scalar("speed/examples_per_second", speed, step)
        self._events.add_scalar("speed/share_waiting_for_data", waiting, step)
        losses = {name: value for name, value in values.items() if name.rpartition("/")[2] == "loss"}
        self._loss = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        rate = f"{speed:,.0f} examples/s"
        if waiting > _MOST_WAITING and self._is_on_disk:
            rate += f" ({waiting:.0%} of the time waiting for data)"
        told = ", ".join(filter(None, (self._loss, rate, self._validation)))
        self._bar.set_postfix_str(told)
        if self._bar.disable:  # there is no terminal
            left = terminal.duration((self._run.config.train.steps - step) / per_second)
            print(f"step {step}: {self._loss}, {rate}, {left} left")

    def draw_samples(self, step: int, state: TrainState) -> None:
        """Draws samples of a state, and records what is counted on them."""
        num = _POINTS if self._run.spec.shape == (2,) else _IMAGES
        grid = images.as_grid(draw.over_time(self._run, state, num))
        self._draw(step, grid)
        self._likelihood = self._likelihood or draw.validation_likelihood(self._run, state)
        counted = measure.count_on_samples(self._run, state, seed=0)
        counted = {name: value for name, value in counted.items() if np.isfinite(value)}  # JSON has no other numbers
        if counted:
            self._log.write(step, "samples", counted)
        for name, value in counted.items():
            self._events.add_scalar(f"samples/{name}", value, step)

    def _draw(self, step: int, grid: np.ndarray) -> None:
        path = self._run.folder.samples / f"step-{step:07d}.png"
        try:
            picture = images.read(draw.draw_grid(self._run, path, grid))
        except OSError as error:  # a full disk, which must not end the run for a picture
            if not self._warned:
                _LOG.warning(f"some pictures are missing: {error.strerror or error}: {path}")
            self._warned = True
        else:
            self._events.add_image("samples", picture, step)

    def record_validation(self, step: int, log_prob: float | None) -> None:
        """Records the validation of a step, and prints it with the last training loss."""
        if log_prob is not None:
            self._log.write(step, "validation", {"log_prob": log_prob})
            self._events.add_scalar("validation/log_prob", log_prob, step)
        parts = [self._loss] if self._loss else []  # nothing is logged before the first interval ends
        if log_prob is not None and self._likelihood is not None:
            sign = results.SIGN_OF_NLL[self._likelihood.kind]
            self._validation = f"validation {sign} {-log_prob:.4g}"
            parts.append(f"validation -log p {sign} {-log_prob:.3f} nats ({self._likelihood.measure})")
        self._bar.write(f"step {step}: {', '.join(parts) or 'saved'}")
        self._since, self._waited = (step, time.perf_counter()), 0.0

    def validations(self) -> list[tuple[int, float]]:
        """Returns (step, log-probability) of every validation in the log."""
        return list(self._log.column("validation", "log_prob"))

    def sync(self) -> None:
        """Waits until metrics.jsonl is on the disk.

        Raises:
            OSError: the disk failed.
        """
        self._log.sync()

    def waited(self, seconds: float) -> None:
        """Counts time in which the loop waited for a batch; `log` records its share since the last line."""
        self._waited += seconds

    def tick(self, step: int) -> None:
        """Moves the progress bar."""
        self._bar.update(step - self._bar.n)
