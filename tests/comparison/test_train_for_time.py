"""Training for a fixed time, on a run with one parameter."""

import types

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.comparison import train_for_time
from gm_jax.config import TrainConfig
from gm_jax.data import sources
from gm_jax.recipes.experiment import Experiment
from gm_jax.runner.run import Run
from gm_jax.training import parallel
from gm_jax.training.metrics import NonFiniteError
from gm_jax.types import Likelihood, Model, Objective


def run(*, log_prob=True, prepare=None, loss=lambda w: jnp.square(w - 1.0)):
    """Returns a run whose parameter descends from 0 to 1, and whose log-probability is best at a half."""

    def objective(params, model_state, key, batch):
        return loss(params["one"]["w"]), (model_state, {})

    def of_x(params, model_state, key, x):
        return Likelihood(jnp.full(x.shape[0], -jnp.abs(params["one"]["w"] - 0.5)), "exact", "continuous")

    model = Model(
        init=lambda key, batch: ({"one": {"w": jnp.zeros(())}}, {}),
        objectives=(Objective("one", objective),),
        sample=None,
        log_prob=of_x if log_prob else None,
    )
    train = TrainConfig(batch_size=4, steps_per_call=2)
    spec = sources.Spec("nothing", (2,), None, None, "")
    x = {"x": np.zeros((20, 2), np.float32)}
    experiment = Experiment(model, {"one": optax.sgd(5e-4)}, prepare_evaluation=prepare)
    return Run(
        types.SimpleNamespace(train=train),
        spec,
        {"train": x, "validation": x, "test": x},
        experiment,
        parallel.jit(),
        None,
    )


def test_training_ends_on_time_and_keeps_the_best_state_on_validation():
    trained = train_for_time.train(run(), seconds=1.0, validations=40)
    assert 0.9 < trained.seconds < 2.5
    assert trained.steps > 500
    # On its way to 1 the parameter passes 1/2, where validation is best, and that state is kept.
    assert trained.curve[-1].value > 0.1 + min(moment.value for moment in trained.curve)
    assert trained.step < trained.steps
    np.testing.assert_allclose(float(trained.state.params["one"]["w"]), 0.5, atol=0.1)
    assert int(trained.state.step) == trained.step
    seconds = [moment.seconds for moment in trained.curve]
    assert seconds == sorted(seconds)
    assert seconds[-1] <= trained.seconds
    assert {(moment.kind, moment.measure) for moment in trained.curve} == {("exact", "continuous")}


@pytest.mark.parametrize("settings", [{"log_prob": False}, {"prepare": lambda params, state, x: (state, {})}])
def test_without_a_validation_the_last_state_is_kept(settings):
    trained = train_for_time.train(run(**settings), seconds=0.3)
    assert trained.curve == []
    assert trained.step == trained.steps == int(trained.state.step)


def test_a_loss_that_is_not_finite_raises():
    with pytest.raises(NonFiniteError):
        train_for_time.train(run(loss=lambda w: jnp.log(w)), seconds=0.3)
