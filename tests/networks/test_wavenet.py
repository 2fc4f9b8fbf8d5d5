import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.wavenet import GatedCausalConv, WaveNet, receptive_field


@pytest.mark.parametrize(
    ("kernel_size", "dilations"), [(2, (1,)), (2, (1, 2, 4)), (3, (1, 3)), (2, (1, 2, 4, 1, 2, 4)), (4, (2,))]
)
def test_the_measured_receptive_field_equals_the_formula(randomized, kernel_size, dilations):
    field = receptive_field(kernel_size, dilations)
    length = field + 4
    module = WaveNet(3, 2, features=4, skip=12, dilations=dilations, kernel_size=kernel_size)
    x = jax.random.randint(jax.random.key(0), (1, length), 0, 3)
    sees = np.zeros((length, length), bool)

    @jax.jit
    def dependence(params):
        fn = functools.partial(module.apply, params, method="from_embedded")
        jacobian = jax.jacrev(fn)(module.apply(params, x, method=lambda m, x: m.embedding(x)))
        return jnp.abs(jacobian).max(axis=(0, 2, 3, 5)) != 0

    for seed in range(4):  # a relu may be dead for one seed
        sees |= np.asarray(dependence(randomized(module, x, seed=seed)))
    # Doubling dilations see the whole field; others see at least its two ends.
    last = np.flatnonzero(sees[-1])
    assert (last.min(), last.max()) == (length - 1 - field, length - 2)
    t, s = np.indices(sees.shape)
    assert not sees[(s >= t) | (s < t - field)].any()
    if dilations[0] == 1 and kernel_size == 2:
        np.testing.assert_array_equal(sees, (s < t) & (s >= t - field))
    assert not sees[0].any()


def test_ten_layers_of_doubling_dilation_see_1024_steps():
    assert receptive_field(2, [2**layer for layer in range(10)]) == 1024
    assert receptive_field(3, (1, 2)) == 7


def test_the_first_outputs_do_not_depend_on_the_sequence(randomized):
    module = WaveNet(4, 3, features=4, skip=12, dilations=(1, 2))
    x = jax.random.randint(jax.random.key(0), (6, 5), 0, 4)
    outputs = module.apply(randomized(module, x), x)
    np.testing.assert_allclose(outputs[:, 0], np.tile(outputs[:1, 0], (6, 1)), atol=1e-6)
    assert np.abs(outputs[:1, 1] - outputs[:, 1]).max() > 1e-3


def test_a_layer_equals_the_explicit_sum(randomized):
    module, h = GatedCausalConv(3, 2, kernel_size=3, dilation=2), jax.random.normal(jax.random.key(0), (2, 9, 3))
    params = randomized(module, h, None)
    kernel, bias = (np.asarray(params["params"][name], np.float64) for name in ("kernel", "bias"))
    h = np.asarray(h, np.float64)
    label_bias = np.asarray([[0.5, -1.0, 2.0, 0.1], [1.0, 0.0, -2.0, 0.3]])
    outputs = module.apply(params, jnp.asarray(h, jnp.float32), jnp.asarray(label_bias, jnp.float32))
    for t in range(9):
        a = bias + label_bias + sum(h[:, t - 2 * i] @ kernel[i] for i in range(3) if t >= 2 * i)
        expected = np.tanh(a[:, :2]) / (1 + np.exp(-a[:, 2:]))
        np.testing.assert_allclose(outputs[:, t], expected, atol=1e-5)


def test_outputs_equal_the_network_of_the_paper(randomized):
    dilations = (1, 2)
    module = WaveNet(4, 3, features=2, skip=5, dilations=dilations, num_classes=2)
    x, label = jax.random.randint(jax.random.key(0), (3, 7), 0, 4), jnp.asarray([1, 0, 1])
    params = randomized(module, x, label)
    of = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])

    def dense(name, h):
        return h @ of[name]["kernel"] + of[name]["bias"]

    h = np.concatenate([np.zeros((3, 1, 2)), of["embedding"]["embedding"][np.asarray(x)][:, :-1]], axis=1)
    skip = 0.0
    for layer, dilation in enumerate(dilations):
        now, before = of[f"convs_{layer}"]["kernel"]
        delayed = np.concatenate([np.zeros((3, dilation, 2)), h[:, :-dilation]], axis=1)
        a = h @ now + delayed @ before + of[f"convs_{layer}"]["bias"]
        a = a + of[f"label_biases_{layer}"]["Embed_0"]["embedding"][np.asarray(label)][:, None]
        projected = dense(f"projections_{layer}", np.tanh(a[..., :2]) / (1.0 + np.exp(-a[..., 2:])))
        skip = skip + projected[..., -5:]
        if layer + 1 < len(dilations):
            h = h + projected[..., :2]
    expected = dense("readout", np.maximum(dense("hidden", np.maximum(skip, 0.0)), 0.0))
    assert expected.std() > 0.1
    np.testing.assert_allclose(module.apply(params, x, label), expected, atol=1e-4)


@pytest.mark.parametrize(("kernel_size", "dilations"), [(2, (1, 2, 4)), (3, (2, 3, 1)), (2, (16,))])
def test_cached_steps_equal_the_whole_sequence(randomized, kernel_size, dilations):
    module = WaveNet(5, 4, features=3, skip=6, dilations=dilations, kernel_size=kernel_size, num_classes=2)
    x = jax.random.randint(jax.random.key(0), (2, 20), 0, 5)
    label = jnp.asarray([1, 0])
    call = functools.partial(module.apply, randomized(module, x, label))
    step, cache, outputs = jax.jit(functools.partial(call, method="step")), call(2, label, method="begin"), []
    for i in range(20):
        cache, output = step(cache, i, x[:, i - 1] if i else jnp.full(2, 4))
        outputs.append(output)
    np.testing.assert_allclose(np.stack(outputs, 1), jax.jit(call)(x, label), atol=1e-5)


def test_every_parameter_gets_a_gradient_and_stays_float32_in_bfloat16(randomized):
    settings = {"features": 3, "skip": 6, "dilations": (1, 2), "num_classes": 2}
    x, label = jax.random.randint(jax.random.key(0), (4, 8), 0, 5), jnp.asarray([0, 1, 0, 1])
    module = WaveNet(5, 4, **settings)
    loss = lambda params: jnp.sum(jnp.tanh(module.apply(params, x, label)))  # noqa: E731
    for path, leaf in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(randomized(module, x, label))):
        assert np.abs(leaf).max() > 0, path
    small = WaveNet(5, 4, **settings, dtype=jnp.bfloat16)
    outputs, variables = jax.eval_shape(small.init_with_output, jax.random.key(0), x, label)
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_a_kernel_of_one_tap_raises():
    with pytest.raises(ValueError, match="no past"):
        WaveNet(2, 1, kernel_size=1).init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
