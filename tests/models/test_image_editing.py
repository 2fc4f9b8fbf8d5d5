"""Image to image and inpainting, on points in the plane and on images of three levels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.models import diffusion, diffusion_space, image_editing
from gm_jax.models.path_sampling import PathSampler
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.ops import diffusion_process
from gm_jax.samplers.ddim import ddim
from gm_jax.samplers.ddpm import ancestral

KEY = jax.random.key(4)
SCHEDULE = diffusion_process.cosine_schedule(40)
X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, 2, 1)), jnp.float32)


def model_of(sampler):
    return diffusion.Diffusion(
        network=DiffusionMLP(8, 1),
        space=diffusion_space.points(),
        schedule=SCHEDULE,
        shape=(2, 2, 1),
        parameterization=diffusion.v_prediction(),
        sampler=sampler,
        variance_fn=diffusion_process.posterior_variance,
    )


MODEL = model_of(ddim(SCHEDULE, 10))


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(MODEL.init, KEY, {"x": X})[0]
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(KEY, len(leaves))
    drawn = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def edit(params, model=MODEL, **settings):
    return image_editing.edit(model, params, {}, KEY, X, **settings)


def test_strength_0_is_the_image_and_strength_1_is_a_sample(params):
    np.testing.assert_array_equal(edit(params, strength=0.0), X)
    np.testing.assert_array_equal(edit(params, strength=1.0), MODEL.sample(params, {}, KEY, 5))


def test_more_strength_leads_further_from_the_image(params):
    gaps = [float(jnp.mean((edit(params, strength=s) - X) ** 2)) for s in (0.0, 0.2, 0.5, 1.0)]
    assert gaps == sorted(gaps)
    assert gaps[1] < 0.5 * gaps[-1]


def test_a_part_of_the_times_starts_from_the_diffused_image(params):
    times = MODEL.sampler.times[-3:]
    noise_key, key = jax.random.split(KEY)
    t = jnp.asarray(times[0])
    x_t = SCHEDULE.signal(t) * X + SCHEDULE.noise(t) * jax.random.normal(noise_key, X.shape)
    predict_fn = MODEL.predict_fn(params, {}, None)
    expected = image_editing.samplers.sample(
        MODEL.sampler.step_fn, predict_fn, SCHEDULE, key, x_t, times, clip=MODEL.space.clip
    )
    np.testing.assert_allclose(edit(params, strength=0.3), expected, atol=1e-6)


@pytest.mark.parametrize(
    "sampler",
    [ddim(SCHEDULE, 10), ancestral(SCHEDULE, 10, variance_fn=diffusion_process.posterior_variance)],
    ids=["ddim", "ancestral"],
)
def test_the_mask_says_what_is_drawn(params, sampler):
    model = model_of(sampler)
    everywhere = edit(params, model, strength=1.0, mask=jnp.ones((2, 2, 1), bool))
    # Two programs, whose sums are in another order.
    np.testing.assert_allclose(everywhere, edit(params, model, strength=1.0), atol=1e-6)
    mask = jnp.array([[True, False], [False, True]])[..., None]
    part = np.asarray(edit(params, model, strength=1.0, mask=mask))
    np.testing.assert_allclose(part[:, ~np.asarray(mask)], X[:, ~np.asarray(mask)], atol=1e-6)
    assert np.abs(part - X)[:, np.asarray(mask)].min() > 1e-4
    # The network sees the known places: what is drawn depends on them.
    assert np.abs(part - everywhere)[:, np.asarray(mask)].max() > 1e-4


def test_known_places_have_the_noise_of_their_time():
    x = jnp.broadcast_to(X[:1], (4000, 2, 2, 1))
    step = image_editing.keeping(lambda key, x_t, *rest: x_t, x, jnp.zeros((2, 2, 1), bool))
    at = SCHEDULE.at(20)
    known = np.asarray(step(KEY, x, None, at, at), np.float64)
    np.testing.assert_allclose(known.mean(0), SCHEDULE.signal(20) * X[0], atol=0.06)
    np.testing.assert_allclose(known.std(0), SCHEDULE.noise(20), rtol=0.05)


def test_a_latent_is_drawn_if_one_of_its_pixels_is():
    mask = np.zeros((4, 6), bool)
    mask[1, 5] = True
    found = image_editing.mask_of_latents(jnp.asarray(mask), (4, 6, 3), (2, 3, 8))
    assert np.argwhere(found).tolist() == [[0, 2, 0]]
    assert found.shape == (2, 3, 1)


def test_pixels_are_edited_on_their_own_scale(params):
    model = dataclasses.replace(MODEL, space=diffusion_space.pixels(levels=3))
    x = jnp.asarray(np.random.default_rng(1).integers(0, 3, (5, 2, 2, 1)), jnp.uint8)
    np.testing.assert_array_equal(image_editing.edit_pixels(model, params, {}, KEY, x, strength=0.0), x)
    mask = jnp.array([[True, False], [False, True]])
    part = image_editing.edit_pixels(model, params, {}, KEY, x, strength=1.0, mask=mask)
    assert part.dtype == jnp.uint8
    np.testing.assert_array_equal(part[:, ~np.asarray(mask)], x[:, ~np.asarray(mask)])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda params: edit(params, strength=1.5), "strength is 1.5"),
        (lambda params: edit(params, strength=-0.1), "strength is -0.1"),
        (lambda params: edit(params, model_of(PathSampler(None)), strength=0.5), "steps of the schedule"),
        (lambda params: image_editing.mask_of_latents(jnp.ones((3, 6)), (4, 6, 3), (2, 3, 8)), "mask is 3 x 6"),
        (lambda params: image_editing.mask_of_latents(jnp.ones((4, 6)), (4, 6, 3), (16,)), "latents are an image"),
    ],
)
def test_what_does_not_fit_is_refused(params, call, match):
    with pytest.raises(UserError, match=match):
        call(params)
