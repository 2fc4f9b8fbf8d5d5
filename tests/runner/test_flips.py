"""Mirrored training images: a run resumes to the same end, and only the images of training are mirrored."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gm_jax
from experiments import flow_matching
from gm_jax.cluster import processes
from gm_jax.cluster.config import ClusterConfig
from gm_jax.config import DataConfig, TrainConfig
from gm_jax.config.saved import updated
from gm_jax.data import pipeline, sources
from gm_jax.errors import UserError
from gm_jax.recipes.experiment import Experiment
from gm_jax.runner import session
from gm_jax.runner.folder import Folder
from gm_jax.runner.run import Run
from gm_jax.training import parallel
from gm_jax.types import Likelihood, Model, Objective

X = np.random.default_rng(0).integers(0, 256, (24, 2, 3, 1), np.uint8)
BATCH = 8


def trained(folder, *, steps, flip, strategy):
    """The sum of the mean images that were trained on, and the lines of the validations."""

    def loss(params, model_state, key, batch):
        # The gradient is minus the mean image, so that the parameter becomes the sum of these.
        return -jnp.sum(params["net"] * jnp.mean(batch["x"].astype(jnp.float32), 0)), (model_state, {})

    def log_prob(params, model_state, key, x):
        return Likelihood(x.astype(jnp.float32)[:, 0, 0, 0], "exact", "256 levels", ())

    model = Model(
        init=lambda key, batch: ({"net": jnp.zeros((2, 3, 1))}, {}),
        objectives=(Objective("net", loss),),
        sample=lambda params, model_state, key, n, **_: jnp.zeros((n, 2, 3, 1), jnp.uint8),
        log_prob=log_prob,
    )
    train = TrainConfig(steps=steps, batch_size=BATCH, seed=3, checkpoint_every=2, log_every=2, tracker="none")
    config: Any = types.SimpleNamespace(data=DataConfig(flip=flip), train=train)
    spec = sources.Spec("images", (2, 3, 1), 256, None, "fingerprint")
    experiment = Experiment(model, {"net": optax.sgd(1.0)})
    splits = {split: {"x": X} for split in ("train", "validation", "test")}
    run = Run(config, spec, splits, experiment, strategy, Folder(folder))
    run.folder.create()
    run.folder.config.touch()
    assert session.train(run, processes.Member(ClusterConfig())) == steps
    lines = [line for line in run.folder.metrics.read_text().splitlines() if "validation" in line]
    return jax.device_get(run.restore("latest")[0].params["net"]), lines


def summed(steps, *, flip):
    batches = pipeline.train_batches({"x": X}, BATCH, 3, 0, steps, flip=flip)["x"]
    return batches.astype(np.float64).mean(1).sum(0)


@pytest.mark.parametrize("strategy", [parallel.jit, parallel.pmap])
def test_a_run_trains_on_mirrored_images_and_resumes_to_the_same_end(strategy, tmp_path):
    trained(tmp_path / "resumed", steps=2, flip=True, strategy=strategy())
    resumed, _ = trained(tmp_path / "resumed", steps=6, flip=True, strategy=strategy())
    whole, validations = trained(tmp_path / "whole", steps=6, flip=True, strategy=strategy())
    plain, of_plain = trained(tmp_path / "plain", steps=6, flip=False, strategy=strategy())
    np.testing.assert_array_equal(resumed, whole)
    np.testing.assert_allclose(whole, summed(6, flip=True), rtol=1e-5)
    np.testing.assert_allclose(plain, summed(6, flip=False), rtol=1e-5)
    assert not np.allclose(whole, plain)
    assert validations == of_plain != []  # evaluations see the images as they are


def test_points_are_not_mirrored(tmp_path):
    config = updated(flow_matching.CONFIG, {"data": {"name": "toy:two_moons", "flip": True}})
    with pytest.raises(UserError, match=r"--data\.flip mirrors images, and toy:two_moons is not made of images"):
        gm_jax.train(config, workdir=tmp_path / "run")


def test_pictures_with_captions_are_not_mirrored(tmp_path):
    config = updated(flow_matching.CONFIG, {"data": {"name": "captions", "flip": True}})
    with pytest.raises(UserError, match=r"--data\.flip would make the captions of captions wrong"):
        gm_jax.train(config, workdir=tmp_path / "run")
