"""A preconditioned model whose network outputs 0 is the exact model of normal data: its numbers are closed forms."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.errors import UserError
from gm_jax.models import flow, path_objectives, path_sampling, score
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.networks.time_embedding import TimeEmbedding
from gm_jax.samplers import dpm_solver, ode, sde, time_grids
from tests.gaussian_mixture import PATHS

C = 0.5


def sampler(solve, *, noisy=False, one_by_one=False, num_times=60):
    def draw(key, predict_fn, path, x_T):
        times = time_grids.uniform_log_snr(path, num_times)
        x = solve(key, predict_fn, path, x_T, times) if noisy else solve(predict_fn, path, x_T, times)
        return ode.denoise(predict_fn, x, times[-1])

    return path_sampling.PathSampler(draw, one_by_one=one_by_one)


def family(path="edm", *, shape=(2,), levels=None, num_classes=None, **settings):
    """Its last layer starts at 0."""
    labels = None if num_classes is None else num_classes + 1
    return score.ScoreModel(
        network=DiffusionMLP(8, 1, num_classes=labels),
        space=flow.no_dequantization() if levels is None else flow.symmetric_dequantization(levels=levels),
        path=PATHS[path],
        shape=shape,
        parameterization=path_objectives.preconditioned_prediction(sigma_data=C),
        times_fn=path_objectives.log_snr_times,
        sigma_data=C,
        num_classes=num_classes,
        **{"likelihood": score.ODELikelihood(), "sampler": SAMPLERS["dpm_solver_2m"], **settings},
    )


def points(n=6, seed=0):
    return C * jax.random.normal(jax.random.key(seed), (n, 2))


@pytest.mark.parametrize("path", PATHS)
def test_the_likelihood_of_normal_data_is_theirs_on_every_path(path):
    model, x = family(path), points()
    params, state = model.init(jax.random.key(1), {"x": x})
    found = jax.jit(model.log_prob)(params, state, jax.random.key(2), x)
    first = jnp.asarray(model.path.range[0])
    a, s = float(model.path.signal(first)), float(model.path.noise(first))
    expected = stats.norm.logpdf(x, scale=np.sqrt(a**2 * C**2 + s**2)).sum(axis=1)
    np.testing.assert_allclose(found.log_prob, expected, atol=2e-3)
    assert (found.kind, found.measure) == ("exact", "continuous")
    settings = dict(found.settings)
    assert (settings["t_min"], settings["t_max"]) == model.path.range
    assert settings["rtol"] == settings["atol"] == 1e-5
    a, s = (float(factor(jnp.asarray(model.path.range[1]))) for factor in (model.path.signal, model.path.noise))
    np.testing.assert_allclose(settings["prior_kl"], (a * C / s) ** 2, rtol=0.05)  # 1/2 in each of two dimensions


@pytest.mark.parametrize("path", ["vp", "edm", "linear"])
def test_the_bound_of_the_exact_score_is_the_likelihood(path):
    model, x = family(path, num_bound_times=400), jnp.tile(jnp.array([[0.4, -0.3]]), (300, 1))
    params, state = model.init(jax.random.key(1), {"x": x})
    bound = jax.jit(model.bound)(params, state, jax.random.key(2), x)
    exact = float(stats.norm.logpdf([0.4, -0.3], scale=C).sum())
    error = float(jnp.std(bound.log_prob)) / np.sqrt(300)
    assert abs(float(jnp.mean(bound.log_prob)) - exact) < 4 * error + 5e-3
    assert error < 0.1
    assert bound.kind == "lower_bound"


SAMPLERS = {
    "euler": sampler(ode.euler, num_times=400),
    "heun": sampler(ode.heun),
    "dpm_solver_2m": sampler(dpm_solver.dpm_solver_2m),
    "adaptive": sampler(ode.adaptive, one_by_one=True, num_times=2),
    "ancestral": sampler(sde.ancestral, noisy=True, num_times=200),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_of_every_sampler_have_the_variance_of_the_data(name):
    count = 2000
    model = family("edm", sampler=SAMPLERS[name])
    params, state = model.init(jax.random.key(1), {"x": points()})
    found = jax.jit(functools.partial(model.sample, n=count))(params, state, jax.random.key(3))
    assert found.shape == (count, 2)
    assert abs(float(jnp.std(found)) - C) < 4 * C / np.sqrt(2 * 2 * count) + 0.01


def test_probes_are_exact_where_the_jacobian_is_a_multiple_of_the_identity():
    model, x = family("vp"), points()
    params, state = model.init(jax.random.key(1), {"x": x})
    probed = dataclasses.replace(model, likelihood=score.ODELikelihood(num_probes=2))
    one, other = (jax.jit(m.log_prob)(params, state, jax.random.key(2), x) for m in (model, probed))
    np.testing.assert_allclose(one.log_prob, other.log_prob, atol=1e-3)
    assert other.kind == "estimate"
    assert dict(other.settings)["probes"] == 2
    assert one.probe_error is None
    np.testing.assert_allclose(other.probe_error, np.zeros(6), atol=1e-3)
    alone = dataclasses.replace(model, likelihood=score.ODELikelihood(num_probes=1))
    assert jax.eval_shape(alone.log_prob, params, state, jax.random.key(2), x).probe_error is None


def test_several_probes_state_the_error_of_their_mean():
    # Random weights, so that the divergence depends on the direction.
    model, x = family("edm", likelihood=score.ODELikelihood(tolerance=1e-3, num_probes=8)), points(40)
    params, state = model.init(jax.random.key(1), {"x": x})
    noise = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * noise.normal(size=leaf.shape).astype(np.float32), params)
    found = jax.jit(model.log_prob)(params, state, jax.random.key(2), x)
    exact = jax.jit(model.log_density)(params, state, x)
    assert found.probe_error.shape == (40,)
    gap, error = np.asarray(found.log_prob - exact), np.asarray(found.probe_error)
    assert error.mean() > 1e-2
    # The mean of 8 estimates over its own standard error is Student's t of 7 degrees, of variance 7 / 5.
    assert 0.5 < np.mean(np.square(gap)) / np.mean(np.square(error)) < 2.0


def test_levels_are_dequantised_and_their_likelihood_is_in_their_measure():
    model = family("edm", shape=(2, 2, 1), levels=17)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 17, (5, 2, 2, 1)), jnp.uint8)
    params, state = model.init(jax.random.key(1), {"x": x})
    found = model.log_prob(params, state, jax.random.key(2), x)
    x_0 = model.space.prepare(jax.random.split(jax.random.key(2))[0], x)[0]
    assert -1.0 <= float(x_0.min()) <= float(x_0.max()) < 1.0
    np.testing.assert_array_equal(model.space.to_data(x_0), x)
    density = stats.norm.logpdf(x_0, scale=C).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found.log_prob, density + 4 * np.log(2 / 17), atol=5e-3)
    assert (found.kind, found.measure) == ("lower_bound", "17 levels")
    # So is the bound.
    of_points = dataclasses.replace(model, space=flow.no_dequantization())
    bound, of_density = (
        model.bound(params, state, jax.random.key(2), x),
        of_points.bound(params, state, jax.random.key(2), x_0),
    )
    np.testing.assert_allclose(bound.log_prob, of_density.log_prob + 4 * np.log(2 / 17), rtol=1e-5)


@pytest.mark.parametrize("path", ["ve", "linear"])
def test_the_first_loss_of_a_preconditioned_network_is_one(path):
    model, x = family(path), C * jax.random.normal(jax.random.key(5), (20_000, 2))
    params, state = model.init(jax.random.key(1), {"x": x})
    value = float(jax.jit(model.loss)(params, state, jax.random.key(2), {"x": x})[0])
    assert abs(value - 1.0) < 4 * np.sqrt(2 / 40_000)


def test_labels_belong_to_models_with_labels():
    plain, with_labels = family(), family(num_classes=3, guidance=1.0)
    batch = {"x": points(), "label": jnp.zeros(6, jnp.int32)}
    params, state = plain.init(jax.random.key(1), batch)
    with pytest.raises(UserError):
        plain.sample(params, state, jax.random.key(0), 2, label=jnp.zeros(2, jnp.int32))
    with pytest.raises(UserError):
        plain.sample(params, state, jax.random.key(0), 2, temperature=0.5)
    params, state = with_labels.init(jax.random.key(1), batch)
    with pytest.raises(UserError):
        with_labels.loss(params, state, jax.random.key(0), {"x": points()})


# Three classes and "none", each normal with a mean of its own: a guided model is then normal with the guided mean.
MEANS = np.array([[-2.0, 1.0], [0.5, 0.5], [3.0, -1.0], [0.2, -0.4]])


class ByClass(nn.Module):
    """E[x_0 | x_t] of a class on EDM's path, from what the model shows its network."""

    @nn.compact
    def __call__(self, x, level, label, *, train=False):
        variance = jnp.exp(2.0 * level / 25.0)[:, None]
        mean = jnp.asarray(MEANS, x.dtype)[label]
        return mean + C**2 / (C**2 + variance) * (x * jnp.sqrt(C**2 + variance) - mean)


def by_class(**settings):
    exact = {"network": ByClass(), "parameterization": path_objectives.data_prediction()}
    return dataclasses.replace(family(num_classes=3), **{**exact, **settings})


PARAMS, LABELS = {"score": {}}, jnp.array([2, 0, 1, 0])


@pytest.mark.parametrize(
    ("name", "guidance"), [("heun", 0.0), ("heun", jnp.array(1.5)), ("adaptive", 1.5), ("heun", -1.0)]
)
def test_samples_of_labels_end_where_the_guided_flow_of_their_class_does(name, guidance):
    model, key = by_class(guidance=guidance, sampler=SAMPLERS[name]), jax.random.key(3)
    last = model.path.range[1]
    x_T = last * jax.random.normal(jax.random.split(key)[0], (4, 2))
    w = float(guidance)
    for label, mean in ((LABELS, (1 + w) * MEANS[LABELS] - w * MEANS[3]), (None, np.tile(MEANS[3], (4, 1)))):
        found = jax.jit(functools.partial(model.sample, n=4))(PARAMS, {}, key, label=label)
        np.testing.assert_allclose(found, mean + (x_T - mean) * C / np.sqrt(C**2 + last**2), atol=2e-2)


def test_guidance_of_zero_is_the_conditional_model_bit_for_bit():
    model, x_t, t = by_class(), points(4), jnp.array([0.1, 1.0, 3.0, 20.0])
    expected = model.parameterization.predict(model.path, x_t, model.output(PARAMS, x_t, t, LABELS), t)
    for guidance in (0.0, jnp.array(0.0)):
        found = dataclasses.replace(model, guidance=guidance).predict_fn(PARAMS, {}, LABELS)(x_t, t)
        np.testing.assert_array_equal(found.x_0, expected.x_0)
        np.testing.assert_array_equal(found.eps, expected.eps)


def test_a_loss_is_least_with_the_labels_of_its_data_and_sees_none_if_all_are_withheld():
    label = jnp.tile(jnp.arange(3), 400)
    x = jnp.asarray(MEANS, jnp.float32)[label] + points(1200)

    @functools.partial(jax.jit, static_argnums=0)
    def loss(drop_label, label):
        model = by_class(drop_label=drop_label)
        return model.loss(PARAMS, {}, jax.random.key(5), {"x": x, "label": label})[0]

    right, swapped = loss(0.1, label), loss(0.1, (label + 1) % 3)
    assert float(swapped) > 1.5 * float(right)
    assert float(loss(1.0, label)) == float(loss(1.0, (label + 1) % 3))


def test_classes_whose_parameters_are_swapped_swap_their_samples():
    model = family(num_classes=3, guidance=1.0, sampler=sampler(ode.euler, num_times=5))
    params, state = model.init(jax.random.key(1), {"x": points()})
    noise = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * noise.normal(size=leaf.shape).astype(np.float32), params)
    swapped = jax.tree.map(lambda leaf: leaf[np.array([2, 1, 0, 3])] if leaf.shape[0] == 4 else leaf, params)
    draw = jax.jit(functools.partial(model.sample, n=2))
    one = draw(params, state, jax.random.key(0), label=jnp.array([0, 2]))
    np.testing.assert_array_equal(draw(swapped, state, jax.random.key(0), label=jnp.array([2, 0])), one)
    assert np.abs(draw(params, state, jax.random.key(0), label=jnp.array([2, 0])) - one).max() > 1e-2


def test_a_path_without_signal_or_noise_at_its_ends_gives_finite_losses_and_samples():
    model = dataclasses.replace(
        family(),
        path=PATHS["linear"]._replace(range=(0.0, 1.0)),
        parameterization=path_objectives.velocity_prediction(),
        times_fn=path_objectives.uniform_times,
        sampler=path_sampling.PathSampler(
            lambda key, predict_fn, path, x: ode.euler(predict_fn, path, x, time_grids.uniform(path, 8))
        ),
    )
    params, state = model.init(jax.random.key(1), {"x": points()})
    assert np.isfinite(model.loss(params, state, jax.random.key(0), {"x": points()})[0])
    assert np.isfinite(model.sample(params, state, jax.random.key(0), 3)).all()
    assert np.isfinite(model.log_prob(params, state, jax.random.key(0), points()).log_prob).all()


class Told(nn.Module):
    """A network of images that is told of augmentations, if `augmented` is their count."""

    augmented: int | None

    @nn.compact
    def __call__(self, x, level, label=None, *, changes=None, train=False):
        scale = TimeEmbedding(4, x.shape[-1], augmented=self.augmented, name="time")(level, label, changes)
        return x * scale[:, None, None]


def of_images(augmented, augment):
    model = family(shape=(8, 8, 1), levels=17, sampler=sampler(ode.euler, num_times=3))
    return dataclasses.replace(model, network=Told(augmented), augment=augment)


def test_augmentation_of_probability_0_is_the_loss_without_it_and_samples_are_told_of_none():
    x = {"x": jnp.asarray(np.random.default_rng(0).integers(0, 17, (6, 8, 8, 1)), jnp.uint8)}
    plain, told, augmented = of_images(None, 0.0), of_images(9, 0.0), of_images(9, 0.5)
    params, state = told.init(jax.random.key(1), x)
    noise = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * noise.normal(size=leaf.shape).astype(np.float32), params)
    without = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0.0 * leaf if "augmentation" in jax.tree_util.keystr(path) else leaf, params
    )
    bare = {"score": {**params["score"], "time": {**params["score"]["time"]}}}
    assert bare["score"]["time"].pop("augmentation")["kernel"].shape == (9, 4)

    def loss(model, params):
        return float(model.loss(params, state, jax.random.key(2), x)[0])

    assert loss(plain, bare) == loss(told, params)
    # With another probability, the images change, and so does what the network is told of them.
    assert len({loss(told, params), loss(augmented, params), loss(augmented, without)}) == 3
    expected = plain.sample(bare, state, jax.random.key(3), 2)
    np.testing.assert_array_equal(augmented.sample(params, state, jax.random.key(3), 2), expected)


class Wide(nn.Module):
    """Two outputs for each dimension."""

    @nn.compact
    def __call__(self, x, noise_level, label, *, train=False):
        return nn.Dense(2 * x.shape[-1])(x)


def test_a_network_or_data_of_another_shape_are_refused_at_init():
    wide = dataclasses.replace(family(), network=Wide())
    with pytest.raises(UserError, match=r"the network must return \[1, 2\] for one example, and returns \[1, 4\]"):
        jax.eval_shape(wide.model.init, jax.random.key(0), {"x": points()})
    with pytest.raises(UserError, match=r"examples of shape \[3\], and the data have \[2\]"):
        jax.eval_shape(family(shape=(3,)).model.init, jax.random.key(0), {"x": points()})
