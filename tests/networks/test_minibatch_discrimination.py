import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.minibatch_discrimination import MinibatchDiscrimination

RNG = np.random.default_rng(0)
B, F, K, D = 6, 5, 4, 3


def floats(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(scale=scale, size=shape), jnp.float32)


PARAMS = {"params": {"kernel": floats(F, K * D, scale=0.3)}}


def similarities(features, **settings):
    return MinibatchDiscrimination(K, D, **settings).apply(PARAMS, features)[:, F:]


def test_the_features_come_first_and_unchanged():
    features = floats(B, F)
    np.testing.assert_array_equal(MinibatchDiscrimination(K, D).apply(PARAMS, features)[:, :F], features)


@pytest.mark.parametrize("include_self", [True, False])
def test_the_similarities_equal_the_sums_by_hand(include_self):
    features = floats(B, F)
    kernel = np.asarray(PARAMS["params"]["kernel"], np.float64).reshape(F, K, D)
    m = np.einsum("nf,fkd->nkd", np.asarray(features), kernel)
    expected = np.zeros((B, K))
    for i in range(B):
        for j in range(B):
            if include_self or i != j:
                expected[i] += np.exp(-np.abs(m[i] - m[j]).sum(axis=-1))
    measured = similarities(features, include_self=include_self)
    np.testing.assert_allclose(measured, expected, rtol=1e-4, atol=1e-6)


def test_identical_examples_are_counted_with_or_without_themselves():
    features = jnp.tile(floats(1, F), (B, 1))
    np.testing.assert_array_equal(similarities(features), np.full((B, K), B))
    np.testing.assert_array_equal(similarities(features, include_self=False), np.full((B, K), B - 1))


def test_distant_examples_count_only_themselves():
    features = 1e4 * floats(B, F)
    np.testing.assert_allclose(similarities(features), np.ones((B, K)), atol=1e-6)


def test_similarities_follow_a_permutation_of_the_batch():
    features, order = floats(B, F), np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(similarities(features[order]), similarities(features)[order], rtol=1e-5)


def test_a_collapsed_batch_has_larger_similarities_than_a_varied_one():
    centre, noise = floats(1, F), floats(B, F)
    collapsed, varied = similarities(centre + 0.01 * noise), similarities(centre + noise)
    assert np.all(np.asarray(collapsed) > np.asarray(varied))


def test_each_example_depends_on_every_other_one():
    features = floats(B, F)
    jacobian = np.abs(jax.jit(jax.jacrev(similarities))(features)).max(axis=(1, 3))
    assert np.all(jacobian > 0)


def test_the_gradient_is_finite_for_identical_and_distant_examples():
    total = lambda params, features: MinibatchDiscrimination(K, D).apply(params, features).sum()  # noqa: E731
    gradients_fn = jax.jit(jax.grad(total, argnums=(0, 1)))
    for features in (jnp.tile(floats(1, F), (B, 1)), 1e4 * floats(B, F)):
        for gradient in jax.tree.leaves(gradients_fn(PARAMS, features)):
            assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_with_an_axis_name_values_and_gradients_equal_those_of_the_whole_batch():
    features, weights = floats(B, F), floats(B, F + K)
    parts, part_weights = features.reshape(2, B // 2, F), weights.reshape(2, B // 2, F + K)
    module = MinibatchDiscrimination(K, D, axis_name="batch")
    module.init(jax.random.key(0), features)  # outside any map

    def loss(params, features, weights, module=module):
        out = module.apply(params, features)
        return jnp.mean(jnp.sum(weights * out, axis=-1)), out

    def per_device(features, weights):  # averages as the train step does
        (_, out), gradient = jax.value_and_grad(loss, has_aux=True)(PARAMS, features, weights)
        return out, jax.lax.pmean(gradient, "batch")

    out, gradient = jax.vmap(per_device, axis_name="batch", out_axes=(0, None))(parts, part_weights)
    whole = MinibatchDiscrimination(K, D)
    (_, whole_out), whole_gradient = jax.value_and_grad(loss, has_aux=True)(PARAMS, features, weights, whole)
    np.testing.assert_allclose(out.reshape(B, -1), whole_out, rtol=1e-5)
    (kernel_gradient,), (whole_kernel_gradient,) = map(jax.tree.leaves, (gradient, whole_gradient))
    np.testing.assert_allclose(kernel_gradient, whole_kernel_gradient, rtol=1e-4, atol=1e-6)
    alone = jax.vmap(lambda part: whole.apply(PARAMS, part))(parts)
    assert np.all(np.asarray(alone.reshape(B, -1) - whole_out)[:, F:] < 0)  # without it a device sees only its own


def test_the_module_creates_its_parameters_in_float32():
    module = MinibatchDiscrimination(K, D, dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.zeros((B, F), jnp.bfloat16))
    assert (out.shape, out.dtype) == ((B, F + K), jnp.bfloat16)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables) == {
        "params": {"kernel": ((F, K * D), jnp.float32)}
    }


def test_jit_and_vmap_agree_with_the_plain_call():
    features = floats(3, B, F)
    plain = jnp.stack([similarities(row) for row in features])
    np.testing.assert_allclose(jax.jit(jax.vmap(similarities))(features), plain, rtol=1e-5)
