"""Consistency models of normal data, whose teacher is exact if its network outputs 0."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.models import consistency, flow, path_objectives, path_sampling, score
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.samplers import ode, time_grids
from tests.gaussian_mixture import PATHS

C, PATH = 0.5, PATHS["edm"]
FIRST, LAST = PATH.range


class Exact(nn.Module):
    """`switch` times the output with which a consistency model is the end of the flow of N(0, C^2)."""

    @nn.compact
    def __call__(self, x, t, label=None, *, train=False):
        switch = self.param("switch", nn.initializers.zeros, ())
        t = jnp.exp(t / 25.0)
        x_t, distance = x * jnp.sqrt(C**2 + t**2)[:, None], t - FIRST
        skip, scale = C**2 / (distance**2 + C**2), C * distance / jnp.sqrt(t**2 + C**2)
        share = jnp.sqrt((C**2 + FIRST**2) / (C**2 + t**2))
        return switch * x_t * jnp.where(scale > 1e-6, (share - skip) / jnp.maximum(scale, 1e-6), 0.0)[:, None]


def family(network, *, num_classes=None, **settings):
    def draw(key, predict_fn, path, x_T):
        times = time_grids.karras(path, 60)
        return ode.denoise(predict_fn, ode.heun(predict_fn, path, x_T, times), times[-1])

    teacher = score.ScoreModel(
        network=network,
        space=flow.no_dequantization(),
        path=PATH,
        shape=(2,),
        parameterization=path_objectives.preconditioned_prediction(sigma_data=C),
        times_fn=path_objectives.log_snr_times,
        sampler=path_sampling.PathSampler(draw),
        sigma_data=C,
        likelihood=score.ODELikelihood(),
        num_classes=num_classes,
    )
    return consistency.ConsistencyModel(**{"teacher": teacher, "teacher_steps": 10, **settings})


EXACT = {"score": {"switch": jnp.zeros(())}, "consistency": {"switch": jnp.ones(())}}
POINTS = C * jax.random.normal(jax.random.key(0), (400, 2))


def test_the_end_of_the_path_is_x_itself():
    model = family(DiffusionMLP(8, 1))
    params, _ = model.init(jax.random.key(1), {"x": POINTS})
    params = jax.tree.map(lambda leaf: leaf + 0.3, params)
    x = jnp.array([[0.4, -2.0], [7.0, 0.0]])
    np.testing.assert_array_equal(model.end(model.student(params), x, jnp.full(2, FIRST)), x)
    assert np.abs(model.end(model.student(params), x, jnp.full(2, 1.0)) - x).max() > 0.01


def test_the_end_of_the_exact_flow_has_no_loss():
    model = family(Exact(), num_times=200)
    exact, _ = model.loss(EXACT, {}, jax.random.key(2), {"x": POINTS})
    denoiser, _ = model.loss({**EXACT, "consistency": {"switch": jnp.zeros(())}}, {}, jax.random.key(2), {"x": POINTS})
    assert 0.0 <= float(exact) < 1e-3
    assert float(denoiser) > 10 * float(exact)


def test_the_loss_weighs_a_pair_by_the_gap_of_its_own_times():
    """With three times there are two pairs; the student here is the teacher's denoiser."""
    model, key = family(Exact(), num_times=3), jax.random.key(5)
    denoiser = {**EXACT, "consistency": {"switch": jnp.zeros(())}}
    loss, _ = model.loss(denoiser, {}, key, {"x": POINTS})
    _, time_key, noise_key, _ = jax.random.split(key, 4)
    place = jax.random.randint(time_key, POINTS.shape[:1], 0, 2)
    t, s = (time_grids.karras(PATH, 3)[k][:, None] for k in (place, place + 1))
    x_t = POINTS + t * jax.random.normal(noise_key, POINTS.shape)
    # Heun's step of the exact flow, whose velocity is t x / (C^2 + t^2).
    velocity = t * x_t / (C**2 + t**2)
    x_s = x_t + (s - t) * (velocity + s * (x_t + (s - t) * velocity) / (C**2 + s**2)) / 2
    end, earlier_end = (C**2 / ((time - FIRST) ** 2 + C**2) * x for time, x in ((t, x_t), (s, x_s)))
    huber = np.sqrt(np.sum(np.square(end - earlier_end), axis=1) + 2 * 0.00054**2) - 0.00054 * np.sqrt(2)
    np.testing.assert_allclose(loss, np.mean(huber / (t - s)[:, 0]), rtol=1e-4)


def test_one_step_ends_where_the_flow_of_the_teacher_ends():
    model, key = family(Exact()), jax.random.key(3)
    found = model.sample(EXACT, {}, key, 6)
    x_T = LAST * jax.random.normal(jax.random.split(key)[0], (6, 2))
    np.testing.assert_allclose(found, x_T * np.sqrt((C**2 + FIRST**2) / (C**2 + LAST**2)), rtol=1e-3)
    np.testing.assert_allclose(found, model.teacher.sample(EXACT, {}, key, 6), rtol=2e-2, atol=2e-3)


def test_further_steps_keep_the_distribution():
    model, count = family(Exact(), num_steps=3), 4000
    found = jax.jit(model.sample, static_argnums=3)(EXACT, {}, jax.random.key(4), count)
    assert abs(float(jnp.std(found)) - C) < 4 * C / np.sqrt(2 * 2 * count) + 1e-3


def test_the_student_starts_as_the_teacher_and_trains_alone():
    model = family(DiffusionMLP(8, 1))
    params, state = model.init(jax.random.key(1), {"x": POINTS})
    params["score"] = jax.tree.map(lambda leaf: leaf + 0.3, params["score"])
    for one, other in zip(
        *(jax.tree.leaves(p) for p in (model.student(params)["score"], params["score"])), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    gradient = jax.grad(lambda p: model.loss(p, state, jax.random.key(2), {"x": POINTS})[0])(params)
    assert all((np.asarray(leaf) == 0.0).all() for leaf in jax.tree.leaves(gradient["score"]))
    assert any((np.asarray(leaf) != 0.0).any() for leaf in jax.tree.leaves(gradient["consistency"]))
    first, second = model.model.objectives
    assert (first.wrt, second.wrt) == ("score", "consistency")
    assert [bool(first.turns.is_active(step)) for step in (9, 10)] == [True, False]
    assert [bool(second.turns.is_active(step)) for step in (9, 10)] == [False, True]
    assert model.model.log_prob is None


def test_labels_belong_to_models_with_labels():
    plain, with_labels = family(DiffusionMLP(8, 1)), family(DiffusionMLP(8, 1, num_classes=4), num_classes=3)
    batch = {"x": POINTS[:6], "label": jnp.zeros(6, jnp.int32)}
    params, state = plain.init(jax.random.key(1), batch)
    for options in ({"label": jnp.zeros(2, jnp.int32)}, {"temperature": 0.5}):
        with pytest.raises(UserError):
            plain.sample(params, state, jax.random.key(0), 2, **options)
    params, state = with_labels.init(jax.random.key(1), batch)
    with pytest.raises(UserError):
        with_labels.loss(params, state, jax.random.key(0), {"x": POINTS[:6]})


# Three classes and "none", each normal with a mean of its own: a guided teacher is then normal with the guided mean.
MEANS = np.array([[-2.0, 1.0], [0.5, 0.5], [3.0, -1.0], [0.2, -0.4]])


class ByClass(nn.Module):
    """The output F of the teacher of a class or, with `switch` 1, of the student that ends where its flow ends.

    The student's classes have guided means, w = `guidance`.
    """

    guidance: float = 0.0

    @nn.compact
    def __call__(self, x, t, label, *, train=False):
        switch = self.param("switch", nn.initializers.zeros, ())
        t = jnp.exp(t / 25.0)[:, None]
        x_t, distance, means = x * jnp.sqrt(C**2 + t**2), t - FIRST, jnp.asarray(MEANS, x.dtype)
        mean, w = means[label], jnp.where(label == 3, 0.0, self.guidance)[:, None]
        # The preconditioned F of x_0 = mean + C^2 / (C^2 + t^2) (x_t - mean).
        teacher = mean * t / (C * jnp.sqrt(C**2 + t**2))
        end = (1 + w) * mean - w * means[3:]
        end = end + (x_t - end) * jnp.sqrt((C**2 + FIRST**2) / (C**2 + t**2))
        skip, scale = C**2 / (distance**2 + C**2), C * distance / jnp.sqrt(t**2 + C**2)
        student = jnp.where(scale > 1e-6, (end - skip * x_t) / jnp.maximum(scale, 1e-6), 0.0)
        return switch * student + (1.0 - switch) * teacher


def by_class(guidance, **settings):
    model = family(ByClass(guidance), num_classes=3, **settings)
    return dataclasses.replace(model, teacher=dataclasses.replace(model.teacher, guidance=guidance))


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_a_step_with_labels_ends_where_the_guided_flow_of_their_class_does(guidance):
    model, key, label = by_class(guidance), jax.random.key(3), jnp.array([2, 0, 1, 0])
    found = model.sample(EXACT, {}, key, 4, label=label)
    x_T = LAST * jax.random.normal(jax.random.split(key)[0], (4, 2))
    mean = (1 + guidance) * MEANS[label] - guidance * MEANS[3]
    np.testing.assert_allclose(found, mean + (x_T - mean) * np.sqrt((C**2 + FIRST**2) / (C**2 + LAST**2)), atol=1e-2)
    np.testing.assert_allclose(found, model.teacher.sample(EXACT, {}, key, 4, label=label), atol=3e-2)
    none, mean = model.sample(EXACT, {}, key, 4), MEANS[3:]
    np.testing.assert_allclose(none, mean + (x_T - mean) * np.sqrt((C**2 + FIRST**2) / (C**2 + LAST**2)), atol=1e-2)


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_only_the_student_of_the_same_guidance_and_labels_has_no_loss(guidance):
    label = jnp.tile(jnp.arange(3), 100)
    x = jnp.asarray(MEANS, jnp.float32)[label] + POINTS[:300]

    def loss(*, of_teacher=guidance, params=EXACT):
        model = by_class(guidance, num_times=200)
        teacher = dataclasses.replace(model.teacher, guidance=of_teacher)
        model = dataclasses.replace(model, teacher=teacher)
        return float(jax.jit(model.loss)(params, {}, jax.random.key(2), {"x": x, "label": label})[0])

    assert 0.0 <= loss() < 2e-3
    assert loss(of_teacher=guidance + 1.0) > 10 * loss()
    # A denoiser is no end of a flow.
    assert loss(params={**EXACT, "consistency": {"switch": jnp.zeros(())}}) > 10 * loss()
