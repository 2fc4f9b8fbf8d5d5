"""What a run trains on, validates on and keeps, on a model of two numbers."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.cluster import processes
from gm_jax.cluster.config import ClusterConfig
from gm_jax.config import DataConfig, TrainConfig
from gm_jax.data import memory, pipeline, sources
from gm_jax.errors import UserError
from gm_jax.recipes.experiment import Experiment
from gm_jax.runner import measure, sample_quality, samples, session
from gm_jax.runner.folder import Folder
from gm_jax.runner.run import Run
from gm_jax.training import metrics, parallel
from gm_jax.training.step import step_key
from gm_jax.types import Likelihood, Model, Objective, steps

FIRST_STAGE, SEED, BATCH = 4, 3, 4
X = {"train": 1000.0, "validation": 0.0, "test": -500.0}  # the first coordinate of every example of a split


def two_stages(folder, **settings):
    """Returns a run whose first player adds 1 to log p at each of its steps, and whose second takes 10 away."""

    def loss_of(player):
        def loss(params, model_state, key, batch):
            return -params[player], (model_state, {"x": jnp.mean(batch["x"][:, 1]), "noise": jax.random.normal(key)})

        return loss

    def log_prob(params, model_state, key, x):
        return Likelihood(x[:, 0] + params["first"] - 10.0 * params["second"], "exact", "continuous")

    def sample(params, model_state, key, n, *, label=None, temperature=None):
        x = jax.random.normal(key, (n, 2))
        return x if label is None else x.at[:, 0].set(label)

    model = Model(
        init=lambda key, batch: ({"first": jnp.zeros(()), "second": jnp.zeros(())}, {}),
        objectives=(
            Objective("first", loss_of("first"), steps(0, FIRST_STAGE)),
            Objective("second", loss_of("second"), steps(FIRST_STAGE)),
        ),
        sample=sample,
        log_prob=log_prob,
    )
    defaults = {"steps": 40, "batch_size": BATCH, "seed": SEED, "checkpoint_every": 1, "log_every": 1}
    config = types.SimpleNamespace(data=DataConfig(), train=TrainConfig(**{**defaults, "ema_decay": 0.0, **settings}))
    splits = {split: {"x": np.stack([np.full(12, x), np.arange(12) ** 2], 1).astype("f4")} for split, x in X.items()}
    experiment = Experiment(model, {player: optax.sgd(1.0) for player in ("first", "second")})
    spec = sources.Spec("nothing", (2,), None, None, "fingerprint")
    run = Run(config, spec, splits, experiment, parallel.jit(), Folder(folder))
    run.folder.create()
    run.folder.config.touch()  # a folder without one counts as removed
    return run


def train(run):
    """Trains a run to its end, and returns the step that it reached."""
    return session.train(run, processes.Member(ClusterConfig()))


def column(run, split, name):
    return {line.step: line.values[name] for line in metrics.read(run.folder.metrics) if line.split == split}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run, trained until it is out of patience, and the step that it reached."""
    run = two_stages(tmp_path_factory.mktemp("two_stages"), patience=2)
    return run, train(run)


def test_a_model_with_an_untrained_part_is_never_the_best_and_spends_no_patience(trained):
    run, last = trained
    # Of the validation split: with x of another split all of them would be larger or smaller.
    first_stage = {step: float(step) for step in range(1, FIRST_STAGE + 1)}
    assert column(run, "validation", "log_prob") == {**first_stage, 5: -6.0, 6: -16.0, 7: -26.0}
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


def test_each_step_has_the_batch_and_the_noise_of_the_runs_seed(trained):
    run, last = trained
    lines = {line.step: line.values for line in metrics.read(run.folder.metrics) if line.split == "train"}
    found = []
    for step in range(last):
        player = ("first", "second")[step >= FIRST_STAGE]  # the other one computes no loss
        batch = pipeline.train_batch(run.loaded["train"], BATCH, SEED, step)
        found.append(lines[step + 1][f"{player}/x"])
        np.testing.assert_allclose(found[-1], batch["x"][:, 1].mean(), rtol=1e-6)
        key = jax.random.fold_in(step_key(SEED, jnp.int32(step)), player == "second")
        np.testing.assert_allclose(lines[step + 1][f"{player}/noise"], jax.random.normal(key), rtol=1e-6)
    assert len(set(found)) > last / 2


def test_the_average_of_the_configuration_is_kept_and_evaluated(tmp_path):
    run = two_stages(tmp_path, ema_decay=0.5, steps=3)
    train(run)
    state, _ = run.restore("latest")
    # The parameter is 1, 2, 3; the weights of the past are 1/10, 2/11 and 1/4.
    np.testing.assert_allclose(state.eval_params["first"], 2.7, rtol=1e-6)
    np.testing.assert_allclose(column(run, "validation", "log_prob")[3], 2.7, rtol=1e-6)


def test_the_initialisation_follows_the_seed_and_shares_no_key_with_the_steps(tmp_path):
    def first_of(seed):
        run = two_stages(tmp_path, seed=seed)
        draw = lambda key, batch: ({"first": jax.random.uniform(key), "second": jnp.zeros(())}, {})  # noqa: E731
        run = run._replace(experiment=run.experiment._replace(model=run.experiment.model._replace(init=draw)))
        return float(run.initial_state().params["first"])

    assert first_of(0) == first_of(0) != first_of(1)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(0), jnp.arange(50))
    assert first_of(0) not in np.asarray(jax.vmap(jax.random.uniform)(keys)).tolist()


def test_every_batch_of_samples_has_noise_and_labels_of_its_own(trained):
    run, _ = trained
    state, num = run.initial_state(), samples.BATCH + 7
    many = samples.draw_many(run, state, num, seed=1)
    assert many.shape == (num, 2)
    np.testing.assert_array_equal(many[: samples.BATCH], samples.draw_samples(run, state, samples.BATCH, seed=1))
    labelled = samples.draw_many(run, state, num, seed=1, label=np.arange(num))
    np.testing.assert_array_equal(labelled[:, 0], np.arange(num))
    for drawn in (many, sample_quality.Sampler(run, state, seed=1)(num)):
        assert len(np.unique(drawn[:, 1])) == num


def test_a_model_that_fits_no_memory_is_refused_before_it_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "physical", lambda: 8)
    run = two_stages(tmp_path)
    monkeypatch.setattr(Run, "initial_state", lambda self: pytest.fail("made"))
    with pytest.raises(UserError, match="use a narrower network, or one of fewer layers"):
        session.train(run, None)
