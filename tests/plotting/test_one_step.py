"""Pictures of models of one step: a row for each number of steps, and the flow at the end."""

import jax
import numpy as np
import pytest

from experiments import consistency, meanflow
from gm_jax import recipes
from gm_jax.config.saved import updated
from gm_jax.data.sources import Spec
from gm_jax.recipes.configs import UNetConfig

TINY = Spec("tiny", (4, 4, 1), 17, None, "")


@pytest.mark.slow
def test_samples_by_steps_share_their_noise_with_the_flow():
    for config in (meanflow.CONFIG, consistency.CONFIG):
        small = updated(config, {"network": UNetConfig(features=(8,), attention=())})
        experiment = recipes.build(small, TINY)
        x = np.zeros((10, 4, 4, 1), np.uint8)
        params, state = experiment.model.init(jax.random.key(0), {"x": x})
        grid = jax.jit(experiment.pictures["samples_by_steps"])(params, state, jax.random.key(1), x)
        assert grid.examples.shape == (4, 10, 4, 4, 1)
        assert grid.row_labels() == ["1 step", "2 steps", "4 steps", "flow, 30 steps"]
        assert grid.examples.dtype == np.uint8
