import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks import attention

RNG = np.random.default_rng(0)
FORMS = {"by_image": attention.attend_by_image, "at_once": attention.attend_at_once, "chosen": attention.attend}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def qkv(batch=3, places=5, heads=2, dim=4):
    return tuple(jnp.asarray(2.0 * RNG.normal(size=(batch, places, heads, dim)), jnp.float32) for _ in range(3))


def by_hand(q, k, v):
    y = np.zeros(q.shape)
    for b, n, h in np.ndindex(q.shape[:3]):
        scores = np.exp([np.dot(q[b, n, h], k[b, m, h]) / np.sqrt(q.shape[3]) for m in range(q.shape[1])])
        y[b, n, h] = scores / scores.sum() @ v[b, :, h]
    return y


@each_form
def test_attention_is_the_weighted_mean_of_the_values(form):
    arrays = qkv()
    found = form(*arrays)
    np.testing.assert_allclose(found, by_hand(*(np.asarray(array, np.float64) for array in arrays)), atol=1e-5)


def test_both_forms_have_the_same_gradients():
    def gradients(form):
        return jax.jit(jax.grad(lambda qkv: jnp.sum(jnp.sin(form(*qkv)))))(arrays)

    arrays = qkv()
    at_once = gradients(attention.attend_at_once)
    for form in (attention.attend_by_image, attention.attend):
        for one, other in zip(gradients(form), at_once, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert min(np.abs(leaf).max() for leaf in at_once) > 1e-2


def test_only_a_cpu_goes_image_by_image():
    # Lowered for another platform, as `plan` does it, on a machine that has only a CPU.
    traced = jax.jit(jax.grad(lambda q, k, v: jnp.sum(attention.attend(q, k, v)))).trace(*qkv())
    platforms = ("cpu", "cuda", "tpu")
    lowered = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in platforms}
    assert {platform: "stablehlo.while" in text for platform, text in lowered.items()} == {
        "cpu": True,
        "cuda": False,
        "tpu": False,
    }
    # Nor does it keep the scores of the whole batch for the gradient.
    assert "3x2x5x5xf32" in lowered["tpu"]
    assert "[3,2,5,5]" not in traced.lower().compile().as_text()


def test_scores_of_a_hundred_are_finite_in_half_precision():
    q, k, v = (100.0 * array.astype(jnp.bfloat16) for array in qkv())
    value, grads = jax.value_and_grad(lambda q: jnp.sum(attention.attend(q, k, v).astype(jnp.float32)))(q)
    assert np.isfinite(value)
    assert np.isfinite(grads.astype(jnp.float32)).all()


def test_a_block_does_not_know_the_order_of_places(randomized):
    block, x = attention.SelfAttention(head_dim=4, groups=2), jnp.asarray(RNG.normal(size=(2, 2, 3, 8)), jnp.float32)
    params, order = randomized(block, x), RNG.permutation(6)
    apply = jax.jit(block.apply)
    shuffled = x.reshape(2, 6, 8)[:, order].reshape(x.shape)
    found = apply(params, x).reshape(2, 6, 8)[:, order].reshape(x.shape)
    np.testing.assert_allclose(apply(params, shuffled), found, atol=1e-5)
    assert np.abs(apply(params, x) - x).max() > 0.1


def test_heads_do_not_mix():
    # A head sees its own channels alone: values of the other change nothing.
    q, k, v = qkv()
    other = v.at[:, :, 1].add(1.0)
    difference = np.abs(attention.attend(q, k, v) - attention.attend(q, k, other))
    assert difference[:, :, 0].max() == 0.0
    np.testing.assert_allclose(difference[:, :, 1], np.ones((3, 5, 4)), atol=1e-5)


def test_a_block_is_the_identity_at_first():
    block, x = attention.SelfAttention(head_dim=None, groups=2), jnp.asarray(RNG.normal(size=(1, 2, 2, 4)), jnp.float32)
    np.testing.assert_array_equal(block.init_with_output(jax.random.key(0), x)[0], x)


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="whole heads of 3"):
        attention.SelfAttention(head_dim=3, groups=2).init(jax.random.key(0), jnp.ones((1, 2, 2, 4)))
