"""Training for a fixed time, on a run with one parameter and on a clock that the tests set."""

import types

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.comparison import train_for_time
from gm_jax.config import DataConfig, TrainConfig
from gm_jax.data import sources
from gm_jax.recipes.experiment import Experiment
from gm_jax.runner.run import Run
from gm_jax.training import parallel
from gm_jax.training.metrics import NonFiniteError
from gm_jax.types import Likelihood, Model, Objective

RATE, BEST = 5e-3, {"train": 0.2, "validation": 0.5, "test": 0.8}


def run(*, log_prob=True, prepare=None, loss=lambda w: jnp.square(w - 1.0), strategy=None):
    """Returns a run whose parameter descends from 0 to 1; each split is most probable at a parameter of its own."""

    def objective(params, model_state, key, batch):
        return loss(params["one"]["w"]), (model_state, {})

    def of_x(params, model_state, key, x):
        return Likelihood(-jnp.abs(params["one"]["w"] - x[:, 0]), "exact", "continuous")

    model = Model(
        init=lambda key, batch: ({"one": {"w": jnp.zeros(())}}, {}),
        objectives=(Objective("one", objective),),
        sample=None,
        log_prob=of_x if log_prob else None,
    )
    train = TrainConfig(batch_size=4, steps_per_call=2)
    spec = sources.Spec("nothing", (2,), None, None, "")
    splits = {split: {"x": np.full((20, 2), best, np.float32)} for split, best in BEST.items()}
    experiment = Experiment(model, {"one": optax.sgd(RATE)}, prepare_evaluation=prepare)
    return Run(
        types.SimpleNamespace(data=DataConfig(), train=train),
        spec,
        splits,
        experiment,
        strategy or parallel.jit(),
        None,
    )


def test_training_ends_on_time_and_keeps_the_best_state_on_validation(clock):
    def compile_eval(fn):
        compiled = parallel.jit().compile_eval(fn)

        def evaluate(*args):
            clock.set_forward(100.0)  # the training's clock stands still meanwhile
            return compiled(*args)

        return evaluate

    strategy = parallel.jit()._replace(compile_eval=compile_eval)
    trained = train_for_time.train(run(strategy=strategy), seconds=1.0, validations=16)
    # 64 calls of two steps fit into the second, and every fourth call is followed by a validation.
    assert (trained.seconds, trained.steps) == (1.0, 128)
    assert [(moment.seconds, moment.step) for moment in trained.curve] == [(n / 16, 8 * n) for n in range(1, 17)]
    w = 1.0 - (1.0 - 2.0 * RATE) ** np.arange(8, 129, 8)
    values = np.abs(w - BEST["validation"])
    np.testing.assert_allclose([moment.value for moment in trained.curve], values, atol=1e-5)
    # The parameter passes the best one for the validation split on its way, and that state is kept.
    best = np.argmin(values)
    assert 0 < best < 15
    assert (trained.step, int(trained.state.step)) == (8 * (best + 1), trained.step)
    np.testing.assert_allclose(float(trained.state.params["one"]["w"]), w[best], rtol=1e-5)
    assert {(moment.kind, moment.measure) for moment in trained.curve} == {("exact", "continuous")}


@pytest.mark.parametrize("settings", [{"log_prob": False}, {"prepare": lambda params, state, x: (state, {})}])
def test_without_a_validation_the_last_state_is_kept(clock, settings):
    trained = train_for_time.train(run(**settings), seconds=0.5)
    assert trained.curve == []
    assert trained.step == trained.steps == int(trained.state.step) == 64


def test_a_loss_that_is_not_finite_raises(clock):
    with pytest.raises(NonFiniteError):
        train_for_time.train(run(loss=lambda w: jnp.log(w)), seconds=0.5)
