"""The joint energy model whose density is a mixture of normals, so that all three of its densities are known."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.evaluation.partition import log_partition
from gm_jax.losses import energy as losses
from gm_jax.models import energy_space
from gm_jax.models.energy import EnergyBasedModel
from gm_jax.models.energy_chains import Chains
from gm_jax.models.energy_partition import Partition
from gm_jax.models.jem import JointEnergyModel
from gm_jax.networks.energy import EnergyMLP

B, S = 6, 2.0
W, M = np.array([3.0, 1.0, 2.0]), np.array([[1.0, 0.5], [-1.0, -0.3], [0.2, -1.4]])
BIAS = np.array([0.3, -0.4, 0.9])
# exp(f_y - |h|^2 / (2 s^2)) is a normal density of this precision and mean, times this weight.
PRECISION = W + 1 / S**2
MEAN = W[:, None] * M / PRECISION[:, None]
LOG_WEIGHT = (
    BIAS
    + np.log(2 * np.pi / PRECISION)
    - 0.5 * W * np.sum((MEAN - M) ** 2, axis=1)
    - np.sum(MEAN**2, axis=1) / (2 * S**2)
)


class Quadratics(nn.Module):
    """f(h)[y] = b_y - w_y |h - m_y|^2 / 2."""

    @nn.compact
    def __call__(self, h, *, train):
        w = self.param("w", nn.initializers.constant(W), (3,))
        m = self.param("m", nn.initializers.constant(M), (3, 2))
        b = self.param("b", nn.initializers.constant(BIAS), (3,))
        return b[None] - 0.5 * w[None] * jnp.sum(jnp.square(h[:, None] - m[None]), axis=2)


def family(network=None, **settings):
    defaults = {
        "network": network or Quadratics(),
        "space": energy_space.points(),
        "shape": (2,),
        "chains": Chains(num_steps=3, step_size=0.05, num_persistent=2 * B, sampling_steps=200),
        "base_std": S,
        "to_energy": losses.energy_from_logits,
        "partition": Partition(summarize=log_partition, num_cells=200),
    }
    return JointEnergyModel(energy=EnergyBasedModel(**{**defaults, **settings}), num_classes=3)


def initialised(model):
    batch = {"x": jax.random.normal(jax.random.key(7), (B, 2)), "label": jnp.array([0, 1, 2, 2, 1, 0])}
    return *model.model.init(jax.random.key(0), batch), batch


def joint(x):
    """[B, 3] log p(h, y) by the closed form."""
    x, std = np.asarray(x, np.float64), PRECISION**-0.5
    log_normal = -np.sum((x[:, None] - MEAN) ** 2, axis=2) / (2 * std**2) - np.log(2 * np.pi * std**2)
    return log_normal + LOG_WEIGHT - np.log(np.sum(np.exp(LOG_WEIGHT)))


def test_density_and_class_probabilities_are_those_of_the_mixture():
    model = family()
    params, state, batch = initialised(model)
    state, _ = model.energy.calibrate(params, state, jax.random.key(0), batch["x"])
    expected = joint(batch["x"])
    log_p = np.log(np.exp(expected).sum(axis=1))
    found = model.model.log_prob(params, state, jax.random.key(0), batch["x"])
    np.testing.assert_allclose(found.log_prob, log_p, atol=1e-4)
    found = model.class_log_probs(params, state, jax.random.key(0), batch["x"])
    np.testing.assert_allclose(found, expected - log_p[:, None], atol=1e-4)


@pytest.mark.parametrize("label", [0, 2])
def test_samples_of_a_class_are_its_normal_density(label):
    model = family()
    params, state, _ = initialised(model)
    draws = model.sample(params, state, jax.random.key(3), 10_000, label=jnp.full(10_000, label))
    variance = 1 / PRECISION[label]
    variance /= 1 - 0.05 / (4 * variance)  # the chains' own, see `samplers.langevin`
    np.testing.assert_allclose(np.mean(draws, axis=0), MEAN[label], atol=4 * np.sqrt(variance / 10_000))
    assert abs(float(np.var(draws, axis=0).mean()) - variance) < 4 * variance * np.sqrt(2 / 20_000)


def test_samples_without_a_label_are_those_of_the_energy():
    model = family()
    params, state, _ = initialised(model)
    found = model.sample(params, state, jax.random.key(3), 50)
    np.testing.assert_array_equal(found, model.energy.sample(params, state, jax.random.key(3), 50))
    with pytest.raises(UserError, match="temperature"):
        model.sample(params, state, jax.random.key(3), 5, temperature=0.5)


def test_the_loss_is_the_contrastive_loss_plus_the_cross_entropy():
    model = dataclasses.replace(family(EnergyMLP((8,), num_classes=3)), class_weight=0.7)
    params, state, batch = initialised(model)
    seen = {**state, "chains": {**state["chains"], "rows": state["chains"]["rows"][:B]}}

    def by_hand(params):
        contrastive, _ = model.energy.loss(params, seen, jax.random.split(jax.random.key(5))[0], batch)
        log_probs = jax.nn.log_softmax(model.logits(params, state, batch["x"]))
        return contrastive - 0.7 * jnp.mean(log_probs[jnp.arange(B), batch["label"]])

    (found, (after, metrics)), gradient = jax.value_and_grad(
        lambda p: model.loss(p, seen, jax.random.key(5), batch), has_aux=True
    )(params)
    np.testing.assert_allclose(found, by_hand(params), rtol=1e-5)
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(jax.grad(by_hand)(params)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert set(metrics) == {"data_energy", "model_energy", "energy_gap", "class_nll", "accuracy"}
    assert int(after["chains"]["count"]) == 1


def test_data_without_labels_are_refused():
    model = family()
    params, state, batch = initialised(model)
    with pytest.raises(UserError, match="the data have none"):
        model.loss(params, state, jax.random.key(5), {"x": batch["x"]})


def test_a_network_of_another_number_of_classes_is_refused_at_init():
    batch = {"x": jnp.zeros((B, 2)), "label": jnp.zeros(B, jnp.int32)}
    two_of_three = family(EnergyMLP((8,), num_classes=2))
    with pytest.raises(UserError, match=r"the energy must return \[1, 3\] for one example, and returns \[1, 2\]"):
        jax.eval_shape(two_of_three.model.init, jax.random.key(0), batch)
    with pytest.raises(UserError, match=r"the energy must return \[1, C\] for one example, and returns \[1\]"):
        jax.eval_shape(family(EnergyMLP((8,))).model.init, jax.random.key(0), batch)
