"""A clock for trainings that end by time, so that no number depends on the machine's speed."""

import types

import pytest

from gm_jax.comparison import train_for_time
from gm_jax.data import pipeline


class Clock:
    """A clock that stands still until it is set forward."""

    TICK = 2.0**-6  # seconds of one call of the train step, exact in floating point

    def __init__(self):
        self.now = 0.0

    def set_forward(self, seconds: float = TICK) -> None:
        """Lets time pass."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """The clock of `train_for_time`: a call of the train step takes `Clock.TICK` on it, and all else takes no time."""
    clock = Clock()

    def train_batches(*args, **settings):  # each call of the step asks for its batches once
        clock.set_forward()
        return pipeline.train_batches(*args, **settings)

    monkeypatch.setattr(train_for_time, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(train_for_time, "pipeline", types.SimpleNamespace(train_batches=train_batches))
    return clock
