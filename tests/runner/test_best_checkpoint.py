"""Which checkpoint is the best: by the validation split alone, and only when every player has begun to train."""

import types

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.cluster import processes
from gm_jax.cluster.config import ClusterConfig
from gm_jax.config import TrainConfig
from gm_jax.data import sources
from gm_jax.recipes.experiment import Experiment
from gm_jax.runner import measure, session
from gm_jax.runner.folder import Folder
from gm_jax.runner.run import Run
from gm_jax.training import metrics, parallel
from gm_jax.types import Likelihood, Model, Objective, steps

FIRST_STAGE = 4
X = {"train": 1000.0, "validation": 0.0, "test": -500.0}  # every example of a split


def two_stages(folder):
    """Returns a run whose first player adds 1 to log p at each of its steps, and whose second takes 10 away."""

    def loss_of(player):
        return lambda params, model_state, key, batch: (-params[player], (model_state, {}))

    def log_prob(params, model_state, key, x):
        return Likelihood(x[:, 0] + params["first"] - 10.0 * params["second"], "exact", "continuous")

    model = Model(
        init=lambda key, batch: ({"first": jnp.zeros(()), "second": jnp.zeros(())}, {}),
        objectives=(
            Objective("first", loss_of("first"), steps(0, FIRST_STAGE)),
            Objective("second", loss_of("second"), steps(FIRST_STAGE)),
        ),
        sample=lambda params, model_state, key, n: jnp.zeros((n, 2)),
        log_prob=log_prob,
    )
    train = TrainConfig(steps=40, batch_size=4, checkpoint_every=1, log_every=1, ema_decay=0.0, patience=2)
    config = types.SimpleNamespace(train=train)
    splits = {split: {"x": np.full((12, 2), value, np.float32)} for split, value in X.items()}
    experiment = Experiment(model, {player: optax.sgd(1.0) for player in ("first", "second")})
    spec = sources.Spec("nothing", (2,), None, None, "fingerprint")
    run = Run(config, spec, splits, experiment, parallel.jit(), Folder(folder))
    run.folder.create()
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run, trained until it is out of patience, and the step that it reached."""
    run = two_stages(tmp_path_factory.mktemp("two_stages"))
    return run, session.train(run, lambda: False, processes.Member(ClusterConfig()))


def test_a_model_with_an_untrained_part_is_never_the_best_and_spends_no_patience(trained):
    run, last = trained
    lines = metrics.read(run.folder.metrics)
    validations = {line.step: line.values["log_prob"] for line in lines if line.split == "validation"}
    # Of the validation split: with x of another split all of them would be larger or smaller.
    first_stage = {step: float(step) for step in range(1, FIRST_STAGE + 1)}
    assert validations == {**first_stage, 5: -6.0, 6: -16.0, 7: -26.0}
    # Steps 1 to 4 are better and do not count; two validations without improvement end the run.
    assert last == 7
    state, best = run.restore("best")
    assert best == 5
    assert (float(state.params["first"]), float(state.params["second"])) == (4.0, 1.0)


def test_the_test_split_is_what_is_measured_at_the_end(trained):
    run, _ = trained
    state, step = run.restore("best")
    (record,) = measure.measure_run(run, state, step, split="test", seed=0)
    assert (record.split, record.value) == ("test", -(X["test"] - 6.0))
