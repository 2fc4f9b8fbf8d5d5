import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.transformer import CausalTransformer

IMAGE, COLOURS = (3, 2, 1), (2, 2, 3)


def network(shape, *, levels=4, outputs=3, layers=2, **settings):
    return CausalTransformer(shape, levels, outputs, features=6, heads=2, layers=layers, **settings)


def drawn(shape, count=3, levels=4):
    return jax.random.randint(jax.random.key(0), (count, *shape), 0, levels)


def jacobian_of(module, params, x, label=None):
    """[D, D]: the largest derivative of the outputs of position i in the embedded level of position j."""

    @jax.jit
    def jacobian(params, x):
        fn = lambda e: module.apply(params, e, label, method="from_embedded")  # noqa: E731
        return jnp.abs(jax.jacrev(fn)(module.apply(params, x, method="embed"))).max(axis=(0, 2, 3, 5))

    return np.asarray(jacobian(params, x))


@pytest.mark.parametrize(("shape", "layers"), [(IMAGE, 1), (COLOURS, 2), ((7,), 2)])
def test_an_output_depends_on_exactly_the_earlier_levels(randomized, shape, layers):
    module, x = network(shape, layers=layers), drawn(shape, 1)
    jacobian = jacobian_of(module, randomized(module, x), x)
    earlier = np.tri(*jacobian.shape, k=-1, dtype=bool)
    np.testing.assert_array_equal(jacobian[~earlier], 0.0)
    assert jacobian[earlier].min() > 1e-6


def test_without_layers_an_output_depends_on_the_level_before_it(randomized):
    shape = IMAGE
    module, x = network(shape, layers=0), drawn(shape, 1)
    depends = jacobian_of(module, randomized(module, x), x) != 0
    np.testing.assert_array_equal(depends, np.eye(len(depends), k=-1, dtype=bool))


@pytest.mark.parametrize("shape", [COLOURS, (7,)])
def test_positions_are_in_raster_order_with_colours_fastest(randomized, shape):
    module, x = network(shape), drawn(shape)
    apply = jax.jit(functools.partial(module.apply, randomized(module, x)))
    outputs = apply(x)
    assert outputs.shape == (*x.shape, 3)
    flat = np.asarray(x).reshape(len(x), -1)
    for i in range(flat.shape[1]):
        changed = flat.copy()
        changed[:, i] = (changed[:, i] + 1) % 4
        moved = np.abs(apply(changed.reshape(x.shape)) - outputs).reshape(*flat.shape, 3).max(axis=(0, 2))
        np.testing.assert_array_equal(moved > 1e-6, np.arange(flat.shape[1]) > i)
    np.testing.assert_array_equal(apply(flat).reshape(outputs.shape), outputs)


def dense(of, h):
    return h @ of["kernel"] + of.get("bias", 0.0)


def layer_norm(of, h):
    centred = h - h.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-5) * of["scale"] + of["bias"]


def gelu(h):
    return 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))


def outputs_by_hand(of, levels, shape, x, label):
    """The network of the docstring for one example, position by position: each reads a list of what came before."""
    flat, pasts, found = x.reshape(-1), None, []
    pasts = [([], []) for layer in range(sum(name.startswith("blocks_") for name in of))]
    for i, place in enumerate(np.ndindex(shape)):
        h = of["embedding"]["embedding"][flat[i - 1] if i else levels]
        for axis, (coordinate, size) in enumerate(zip(place, shape, strict=True)):
            h = h + (of[f"positions_{axis}"]["embedding"][coordinate] if size > 1 else 0.0)
        h = h + of["label_bias"]["Embed_0"]["embedding"][label]
        for layer, (keys, values) in enumerate(pasts):
            block = of[f"blocks_{layer}"]
            normed, attention = layer_norm(block["attention_norm"], h), block["attention"]
            keys.append(dense(attention["key"], normed).reshape(2, 3))
            values.append(dense(attention["value"], normed).reshape(2, 3))
            query, heads = dense(attention["query"], normed).reshape(2, 3), []
            for head in range(2):
                weights = np.exp([query[head] @ key[head] / np.sqrt(3) for key in keys])
                heads.append(sum(w * value[head] for w, value in zip(weights, values, strict=True)) / weights.sum())
            h = h + dense(attention["out"], np.concatenate(heads))
            h = h + dense(block["narrow"], gelu(dense(block["wide"], layer_norm(block["mlp_norm"], h))))
        found.append(dense(of["readout"], layer_norm(of["norm"], h)))
    return np.stack(found).reshape(*shape, -1)


@pytest.mark.parametrize(("shape", "layers"), [(IMAGE, 0), (COLOURS, 2), ((7,), 1)])
def test_outputs_equal_the_formula_one_position_at_a_time(randomized, shape, layers):
    module, x, label = network(shape, layers=layers, num_classes=3), drawn(shape), jnp.asarray([2, 0, 1])
    params = randomized(module, x, label)
    of = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    found = jax.jit(module.apply)(params, x, label)
    expected = np.stack([outputs_by_hand(of, 4, shape, one, y) for one, y in zip(np.asarray(x), label, strict=True)])
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("shape", "dtype"), [(COLOURS, None), (IMAGE, jnp.float64), ((7,), jnp.bfloat16)])
def test_cached_steps_equal_the_whole_pass(randomized, request, shape, dtype):
    tolerance = {None: 1e-5, jnp.float64: 1e-12, jnp.bfloat16: 0.1}[dtype]
    if dtype == jnp.float64:
        request.getfixturevalue("x64")
    module, x, label = network(shape, num_classes=3, dtype=dtype), drawn(shape), jnp.asarray([2, 0, 1])
    call = functools.partial(module.apply, randomized(module, x, label))
    whole = jax.jit(call)(x, label)
    assert whole.dtype == (dtype or jnp.float32)
    flat, step = x.reshape(3, -1), jax.jit(functools.partial(call, method="step"))
    cache, outputs = jax.jit(lambda: call(3, label, method="begin"))(), []
    for i in range(flat.shape[1]):
        # The level before the first is ignored.
        cache, output = step(cache, i, flat[:, i - 1] if i else jnp.full(3, 2))
        outputs.append(output)
    whole = np.asarray(whole, np.float64).reshape(3, flat.shape[1], 3)
    np.testing.assert_allclose(np.asarray(np.stack(outputs, 1), np.float64), whole, atol=tolerance)
    assert whole.std() > 0.1


def test_the_cache_keeps_its_shape(randomized):
    module, x = network(IMAGE), drawn(IMAGE)
    call = functools.partial(module.apply, randomized(module, x))
    cache = jax.eval_shape(lambda: call(2, method="begin"))
    after, _ = jax.eval_shape(functools.partial(call, method="step"), cache, 0, jnp.zeros(2, jnp.int32))
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(one)] for one in (cache, after)]
    assert shapes[0] == shapes[1]
    assert shapes[0].count(((2, 2, 6, 3), jnp.dtype("float32"))) == 4  # keys and values of two layers


def test_every_parameter_gets_a_gradient_and_stays_float32_in_bfloat16(randomized):
    shape, label = COLOURS, jnp.asarray([0, 1, 0, 1])
    x = drawn(shape, 4)
    module = network(shape, num_classes=2)
    loss = lambda params: jnp.sum(jnp.tanh(module.apply(params, x, label)))  # noqa: E731
    for path, leaf in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(randomized(module, x, label))):
        assert np.abs(leaf).max() > 0, path
    small = network(shape, num_classes=2, dtype=jnp.bfloat16)
    outputs, variables = jax.eval_shape(small.init_with_output, jax.random.key(0), x, label)
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_the_number_of_parameters_is_that_of_the_paper():
    """GPT-2's small network, without biases of keys and without tied embeddings."""
    width, layers, length, levels = 768, 12, 1024, 50_257
    module = CausalTransformer((length,), levels, levels, features=width, heads=12, layers=layers)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, length), jnp.int32))
    found = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    published = 124_439_808  # of the released weights, embeddings tied
    start, readout, keys = width, (width + 1) * levels, layers * width
    assert found == published + start + readout - keys


def test_dropout_is_for_training_only(randomized):
    shape = IMAGE
    module, x = network(shape, dropout=0.5), drawn(shape)
    params = randomized(module, x)
    apply = jax.jit(lambda key: module.apply(params, x, rngs={"dropout": key}))
    np.testing.assert_array_equal(jax.jit(module.apply)(params, x), jax.jit(network(shape).apply)(params, x))
    one, other = (apply(jax.random.key(seed)) for seed in range(2))
    assert np.abs(one - other).max() > 0.1


@pytest.mark.parametrize("shape", [(2, 3), (7,), (3, 2, 2), (2, 3, 1)])
def test_data_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(3, 2, 1\)"):
        jax.eval_shape(network(IMAGE).init, jax.random.key(0), jnp.zeros((1, *shape), jnp.int32))
