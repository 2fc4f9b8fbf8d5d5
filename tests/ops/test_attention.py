import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import attention

RNG = np.random.default_rng(0)

FORMS = {
    "by_image": attention.attention_by_image,
    "at_once": attention.attention_at_once,
    "chosen": attention.attention,
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def qkv(batch=3, places=5, heads=2, dim=4):
    return tuple(jnp.asarray(2.0 * RNG.normal(size=(batch, places, heads, dim)), jnp.float32) for _ in range(3))


def attention_by_hand(q, k, v, mask=None):
    y = np.zeros(q.shape)
    mask = np.ones((q.shape[1], k.shape[1])) if mask is None else mask
    for b, n, h in np.ndindex(q.shape[:3]):
        scores = np.exp([np.dot(q[b, n, h], k[b, m, h]) / np.sqrt(q.shape[3]) for m in range(k.shape[1])])
        scores *= mask[b, n] if mask.ndim == 3 else mask[n]
        y[b, n, h] = scores / scores.sum() @ v[b, :, h]
    return y


@each_form
def test_attention_equals_the_plain_form(x64, form):
    def plain(q, k, v):  # jax.nn.dot_product_attention computes the softmax in float32
        weights = jax.nn.softmax(jnp.einsum("bnhd,bmhd->bhnm", q, k) / jnp.sqrt(4.0), axis=-1)
        return jnp.einsum("bhnm,bmhd->bnhd", weights, v)

    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, g = (jax.random.normal(key, (3, 5, 2, 4), jnp.float64) for key in keys)
    y, pull = jax.vjp(form, q, k, v)
    expected, pull_plain = jax.vjp(plain, q, k, v)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-11)
    for one, other in zip(pull(g), pull_plain(g), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)
        assert np.abs(other).max() > 1e-3


@each_form
@pytest.mark.parametrize("shape", [None, (4, 5), (3, 4, 5)], ids=["no mask", "one mask", "a mask of each image"])
def test_attention_is_the_weighted_mean_of_the_values(form, shape):
    q, k, v = qkv()
    q = q[:, :4]  # fewer queries than keys
    mask = None if shape is None else (RNG.uniform(size=shape) < 0.5) | np.eye(4, 5, dtype=bool)
    found = form(q, k, v, mask)
    expected = attention_by_hand(*(np.asarray(array, np.float64) for array in (q, k, v)), mask)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@each_form
def test_a_key_that_the_mask_hides_has_no_influence(form):
    q, k, v = qkv()
    mask = np.tri(5, dtype=bool)
    for grad in jax.jit(jax.grad(lambda k, v: jnp.sum(jnp.sin(form(q, k, v, mask)[:, 2])), argnums=(0, 1)))(k, v):
        np.testing.assert_array_equal(grad[:, 3:], 0.0)
        assert np.abs(grad[:, :3]).max(axis=(2, 3)).min() > 1e-4
    # Not even where its score is infinite.
    form = jax.jit(form)
    far = form(q, k.at[:, 4].set(jnp.inf), v.at[:, 4].set(1e30), mask)
    np.testing.assert_array_equal(far[:, :4], form(q, k, v, mask)[:, :4])


def test_attention_of_one_query_reads_the_keys_of_the_mask():
    q, k, v = qkv()
    mask = np.array([True, False, True, True, False])
    arrays = (q[:, 0], jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2))
    found = attention.attention_of_one_query(*arrays, mask)
    np.testing.assert_allclose(found, attention.attention_at_once(q[:, :1], k, v, mask[None])[:, 0], atol=1e-6)
    halves = (array.astype(jnp.bfloat16) for array in arrays)
    assert attention.attention_of_one_query(*halves, mask).dtype == jnp.bfloat16


def test_all_forms_of_attention_have_the_same_gradients():
    def gradients(form):
        return jax.jit(jax.grad(lambda qkv: jnp.sum(jnp.sin(form(*qkv)))))(arrays)

    arrays = qkv()
    at_once = gradients(attention.attention_at_once)
    for form in (attention.attention_by_image, attention.attention):
        for one, other in zip(gradients(form), at_once, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert min(np.abs(leaf).max() for leaf in at_once) > 1e-2


def test_only_cpus_compute_attention_image_by_image():
    # A machine with only a CPU can lower for another platform, as `plan` does.
    traced = jax.jit(jax.grad(lambda q, k, v: jnp.sum(attention.attention(q, k, v)))).trace(*qkv())
    platforms = ("cpu", "cuda", "tpu")
    lowered = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in platforms}
    assert {platform: "stablehlo.while" in text for platform, text in lowered.items()} == {
        "cpu": True,
        "cuda": False,
        "tpu": False,
    }
    # The CPU form stores no scores of the whole batch for the gradient.
    assert "3x2x5x5xf32" in lowered["tpu"]
    assert "[3,2,5,5]" not in traced.lower().compile().as_text()


def test_scores_of_a_hundred_are_finite_in_half_precision():
    q, k, v = (100.0 * array.astype(jnp.bfloat16) for array in qkv())
    value, grads = jax.value_and_grad(lambda q: jnp.sum(attention.attention(q, k, v).astype(jnp.float32)))(q)
    assert np.isfinite(value)
    assert np.isfinite(grads.astype(jnp.float32)).all()


def test_heads_of_attention_do_not_mix():
    q, k, v = qkv()
    other = v.at[:, :, 1].add(1.0)
    difference = np.abs(attention.attention(q, k, v) - attention.attention(q, k, other))
    assert difference[:, :, 0].max() == 0.0
    np.testing.assert_allclose(difference[:, :, 1], np.ones((3, 5, 4)), atol=1e-5)
