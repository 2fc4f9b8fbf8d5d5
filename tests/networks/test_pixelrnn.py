import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.pixelrnn import DiagonalBiLSTM, DiagonalLSTM, PixelRNN, RowLSTM, lstm_cell, skew, unskew

each_lstm = pytest.mark.parametrize("lstm", [RowLSTM, DiagonalBiLSTM])


@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (1, 1, 5, 1), (1, 5, 1, 1), (1, 4, 4, 3)])
def test_skew_moves_each_row_by_its_index_and_unskew_undoes_it(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    _, height, width, _ = shape
    skewed = skew(x)
    assert skewed.shape == (shape[0], height, width + height - 1, shape[3])
    for r in range(height):
        np.testing.assert_array_equal(skewed[:, r, r : r + width], x[:, r])
        assert not skewed[:, r, :r].any()
        assert not skewed[:, r, r + width :].any()
    np.testing.assert_array_equal(unskew(skewed, width), x)


def test_the_lstm_cell_equals_the_formula():
    gates, state = np.random.default_rng(0).normal(size=(3, 8)), np.random.default_rng(1).normal(size=(3, 2))
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    o, f, i, g = np.split(gates, 4, axis=1)
    expected = sigmoid(f) * state + sigmoid(i) * np.tanh(g)
    hidden, after = lstm_cell(jnp.asarray(gates), jnp.asarray(state))
    np.testing.assert_allclose(after, expected, atol=1e-6)
    np.testing.assert_allclose(hidden, sigmoid(o) * np.tanh(expected), atol=1e-6)


def test_the_diagonal_lstm_equals_its_recurrence_pixel_by_pixel(randomized):
    module, gates = DiagonalLSTM(2), jax.random.normal(jax.random.key(0), (2, 3, 4, 8))
    params = randomized(module, gates)
    cell = jax.jit(functools.partial(module.apply, params, method="cell"))
    outside = jnp.zeros((2, 2))
    hidden, state = {}, {}
    for r, c in np.ndindex(3, 4):
        left, above = hidden.get((r, c - 1), outside), hidden.get((r - 1, c), outside)
        hidden[r, c], state[r, c] = cell(gates[:, r, c], state.get((r, c - 1), outside), left, above)
    whole = jax.jit(module.apply)(params, gates)
    for (r, c), expected in hidden.items():
        np.testing.assert_allclose(whole[:, r, c], expected, atol=1e-5)


def test_the_row_lstm_equals_its_recurrence_pixel_by_pixel(randomized, x64):
    """Equation (2) by hand: s comes from the pixel above, h from the three pixels above."""
    height, width, inputs, hidden = 3, 4, 2, 3
    x = np.random.default_rng(0).normal(size=(2, height, width, inputs))
    module = RowLSTM(inputs, hidden, channels=1)
    params = jax.tree.map(np.float64, randomized(module, x, None, None))
    taps, neighbours = params["params"]["input_to_state"]["taps"], params["params"]["state_to_state"]["kernel"]
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    h, s = (
        np.zeros((2, height + 1, width + 2, hidden)) for _ in range(2)
    )  # padded by a row above and a column on each side
    for r, c in np.ndindex(height, width):
        left = x[:, r, c - 1] if c else np.zeros((2, inputs))
        gates = np.concatenate([left, x[:, r, c]], axis=1) @ taps["kernel"] + taps["bias"]
        gates = gates + h[:, r, c : c + 3].reshape(2, -1) @ neighbours
        o, f, i, g = np.split(gates, 4, axis=1)
        s[:, r + 1, c + 1] = sigmoid(f) * s[:, r, c + 1] + sigmoid(i) * np.tanh(g)
        h[:, r + 1, c + 1] = sigmoid(o) * np.tanh(s[:, r + 1, c + 1])
    np.testing.assert_allclose(jax.jit(module.apply)(params, x, None, None), h[:, 1:, 1:-1], atol=1e-12)


@each_lstm
def test_no_output_depends_on_its_own_or_later_levels(dependencies, lstm):
    sees = dependencies(PixelRNN((2, 3, 3), 2, 2, lstm=lstm, hidden=6, layers=2, first_size=3))
    assert not np.triu(sees).any()
    assert sees[1:].any(axis=1).all()


@pytest.mark.parametrize("event_shape", [(5, 5, 1), (2, 3, 3)])
def test_one_diagonal_bilstm_sees_every_earlier_level(dependencies, event_shape):
    sees = dependencies(PixelRNN(event_shape, 2, 2, hidden=6, layers=1, first_size=3))
    np.testing.assert_array_equal(sees, np.tril(np.ones_like(sees), -1))


def test_one_row_lstm_sees_a_triangle(dependencies):
    height, width = 4, 8
    sees = dependencies(PixelRNN((height, width, 1), 2, 1, lstm=RowLSTM, hidden=6, layers=1, first_size=3))
    for i, j in np.ndindex(sees.shape):
        (r, c), (s, d) = divmod(i, width), divmod(j, width)
        up = r - s
        # One column further for each row up, and one more on the left for each of the two masked convolutions.
        assert sees[i, j] == (j < i and -2 - up <= d - c <= up), ((r, c), (s, d))


@each_lstm
def test_cached_evaluation_equals_that_of_the_whole_image(randomized, lstm):
    module = PixelRNN((3, 4, 3), 4, 5, lstm=lstm, hidden=4, layers=2, first_size=5, num_classes=3)
    x = jax.random.randint(jax.random.key(1), (2, 3, 4, 3), 0, 4)
    label = jnp.asarray([2, 1])
    call = functools.partial(module.apply, randomized(module, x, label))
    begin_row, step = (jax.jit(functools.partial(call, method=name)) for name in ("begin_row", "step"))
    flat, outputs = np.asarray(x).reshape(2, -1), []
    cache = call(2, label, method="begin")
    for i in range(flat.shape[1]):
        previous = flat[:, i - 1] if i else np.full(2, 3)  # must be ignored at the first position
        if i % 12 == 0:
            cache = begin_row(cache, i // 12, previous)
        cache, output = step(cache, i, previous)
        outputs.append(output)
    np.testing.assert_allclose(np.stack(outputs, 1), jax.jit(call)(x, label).reshape(2, -1, 5), atol=1e-4)


@each_lstm
def test_every_parameter_gets_a_gradient_and_stays_float32_in_bfloat16(randomized, lstm):
    module = PixelRNN((3, 3, 1), 2, 1, lstm=lstm, hidden=4, layers=1, first_size=3)
    x = jax.random.randint(jax.random.key(1), (4, 3, 3, 1), 0, 2)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(jnp.tanh(module.apply(params, x)))))(randomized(module, x))
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.abs(leaf).max() > 0, path
    small = PixelRNN((3, 3, 1), 2, 1, lstm=lstm, hidden=4, layers=1, first_size=3, dtype=jnp.bfloat16)
    outputs, variables = jax.eval_shape(small.init_with_output, jax.random.key(0), x)
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
