from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.losses import autoregressive as losses
from gm_jax.networks import nade
from gm_jax.networks.nade import NADE

B, H = 5, 7
RNG = np.random.default_rng(0)


def random_params(network, *args):
    shapes = jax.eval_shape(network.init, jax.random.key(0), *args)["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), shapes)


def binary(*shape):
    return jnp.asarray(RNG.integers(0, 2, shape), jnp.float32)


def naive(params, x, order, label=None):
    """Computes equations (1) and (2) with h_i from scratch for every i."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = np.asarray(x, np.float64)
    logits = np.zeros_like(x)
    for i, dim in enumerate(order):
        before = order[:i]
        a = p["hidden_bias"] + x[:, before] @ p["encoder"][before]
        b = p["bias"][dim]
        if label is not None:
            a, b = a + p["label_hidden_bias"][label], b + p["label_bias"][label, dim]
        logits[:, dim] = b + 1.0 / (1.0 + np.exp(-a)) @ p["decoder"][dim]
    return logits


def with_parts(monkeypatch, undivided):
    """Divides batches of more than so many numbers B H, as a machine with one device does."""
    monkeypatch.setattr(jax, "device_count", lambda backend: 1)
    monkeypatch.setattr(nade, "UNDIVIDED", undivided)
    monkeypatch.setattr(nade, "LEAST_ROWS", 1)


def with_form(monkeypatch, form):
    """Makes this machine compute what another platform would."""
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *args, cpu, default: (cpu if form == "cpu" else default)(*args)
    )


# With blocks of 32: one dimension, less than a block, two whole blocks, and a remainder.
@pytest.mark.parametrize("num_dims", [1, 10, 64, 70])
@pytest.mark.parametrize("form", ["cpu", "default"])
def test_both_forms_equal_the_naive_computation(x64, monkeypatch, form, num_dims):
    with_form(monkeypatch, form)
    order = RNG.permutation(num_dims)
    x, label = binary(B, num_dims), np.arange(B) % 3
    network = NADE(num_dims, H, num_classes=3, block=32)
    params = random_params(network, x, order, label)
    logits = network.apply({"params": params}, x, order, label)
    np.testing.assert_allclose(logits, naive(params, x, order, label), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("form", "undivided"), [("cpu", 100), ("cpu", 30), ("default", 100)])
def test_the_gradients_of_both_forms_equal_the_formula(x64, monkeypatch, form, undivided):
    with_form(monkeypatch, form)
    with_parts(monkeypatch, undivided)
    num_dims = 12  # two whole blocks and a remainder
    order = RNG.permutation(num_dims)
    x, network = binary(B, num_dims), NADE(num_dims, H, block=5)
    params = random_params(network, x, order)

    def written_out(p):
        before = jnp.asarray(np.argsort(order)[:, None] < np.argsort(order)[None, :], x.dtype)
        a = p["hidden_bias"] + jnp.einsum("bj,ji,jh->bih", x, before, p["encoder"])
        return p["bias"] + jnp.einsum("bih,ih->bi", jax.nn.sigmoid(a), p["decoder"])

    with jax.numpy_rank_promotion("allow"):
        expected = jax.jit(jax.grad(lambda p: losses.bernoulli_nll(x, written_out(p)).sum()))(params)
    apply = lambda p: network.apply({"params": p}, x, order)  # noqa: E731
    gradient = jax.jit(jax.grad(lambda p: losses.bernoulli_nll(x, apply(p)).sum()))(params)
    for name in gradient:
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-10, atol=1e-12, err_msg=name)


# H = 7, so that 35 numbers are one part, or parts of two and three rows, or five parts of a row.
@pytest.mark.parametrize("undivided", [35, 30, 1])
def test_the_derivative_in_all_inputs_is_that_of_the_blocks(x64, monkeypatch, undivided):
    with_parts(monkeypatch, undivided)
    num_dims = 12
    start, g = RNG.normal(size=(B, H)), RNG.normal(size=(num_dims, B))
    positions = nade.Positions(*(RNG.normal(size=(num_dims, width)) for width in (B, H, H)))
    results = [
        jax.vjp(form, start, positions)
        for form in (partial(nade.one_by_one, jnp.tanh), partial(nade.in_blocks, jnp.tanh, block=5))
    ]
    (logits, pull), (expected, expected_pull) = results
    np.testing.assert_allclose(logits, expected, rtol=1e-12, atol=1e-12)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), pull(g), expected_pull(g))


@pytest.mark.parametrize(
    ("batch", "hidden", "parts"),
    [
        (1, 2**17, 1),
        (65, 500, 1),
        (66, 500, 2),
        (131, 1000, 4),
        (132, 1000, 1),
        (8, 2**14, 1),
        (31, 4096, 1),
        (40, 3000, 2),
    ],
)
def test_batches_of_a_middling_size_are_computed_in_parts(monkeypatch, batch, hidden, parts):
    monkeypatch.setattr(jax, "device_count", lambda backend: 1)
    positions = nade.Positions(jnp.zeros((3, batch)), *2 * [jnp.zeros((3, hidden))])
    jaxpr = jax.make_jaxpr(partial(nade.one_by_one, jnp.tanh))(jnp.zeros((batch, hidden)), positions)
    assert sum("custom_vjp" in str(equation.primitive) for equation in jaxpr.eqns) == parts


def test_a_batch_on_several_devices_is_computed_whole(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda backend: 2)
    assert nade._num_parts(100, 500) == 1


def test_an_accelerator_traces_the_network_without_a_cpu_backend(monkeypatch):
    def absent(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "device_count", absent)
    network, x = NADE(4, H), binary(B, 4)
    params = network.init(jax.random.key(0), x, np.arange(4))
    apply = jax.jit(lambda params: network.apply(params, x, np.arange(4)))
    assert "dot_general" in apply.trace(params).lower(lowering_platforms=("cuda",)).as_text()


def test_the_recursion_stores_the_last_activation_alone():
    batch, hidden, num_dims = 3, 5, 11
    positions = nade.Positions(jnp.zeros((num_dims, batch)), *2 * [jnp.zeros((num_dims, hidden))])
    forwards = partial(nade._forwards, jnp.tanh)
    _, stored = jax.eval_shape(forwards, jnp.zeros((batch, hidden)), positions)
    assert sum(leaf.size for leaf in jax.tree.leaves(stored)) == batch * hidden + num_dims * (batch + 2 * hidden)


@pytest.mark.parametrize("low", ["x", "encoder", "decoder"])
def test_gradients_have_the_precision_of_what_they_are_taken_in(low):
    widths = {"x": B, "encoder": H, "decoder": H}
    arrays = {name: RNG.normal(size=(4, width)).astype(np.float32) for name, width in widths.items()}
    positions = nade.Positions(**{**arrays, low: jnp.asarray(arrays[low], jnp.bfloat16)})
    pull = jax.vjp(partial(nade.one_by_one, jnp.tanh), jnp.zeros((B, H)), positions)[1]
    _, gradients = pull(jnp.ones((4, B)))
    assert gradients._asdict()[low].dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for name, leaf in gradients._asdict().items() if name != low)


@pytest.mark.parametrize("num_dims", [1, 12, 784])
@pytest.mark.parametrize("spread", [False, True])
def test_both_forms_agree_in_float32(monkeypatch, num_dims, spread):
    order, network = RNG.permutation(num_dims), NADE(num_dims, H, block=128)
    x = binary(B, num_dims)
    # Normal parameters make activations of some tens.
    params = random_params(network, x, order) if spread else network.init(jax.random.key(0), x, order)["params"]
    found = {}
    for form in ("cpu", "default"):
        with_form(monkeypatch, form)
        loss = lambda p: losses.bernoulli_nll(x, network.apply({"params": p}, x, order)).sum()  # noqa: E731
        found[form] = jax.jit(jax.value_and_grad(loss))(params)
    (loss, gradient), (expected, expected_gradient) = found["default"], found["cpu"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for name, leaf in gradient.items():
        scale = np.abs(expected_gradient[name]).max()
        np.testing.assert_allclose(leaf, expected_gradient[name], atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize(("platform", "product"), [("cpu", False), ("cuda", True), ("tpu", True)])
def test_accelerators_compute_a_block_by_one_product(platform, product):
    num_dims, block = 12, 4
    network, x = NADE(num_dims, H, block=block), binary(B, num_dims)
    params = network.init(jax.random.key(0), x, np.arange(num_dims))
    apply = jax.jit(lambda params: network.apply(params, x, np.arange(num_dims)))
    text = apply.trace(params).lower(lowering_platforms=(platform,)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert any(f"tensor<{block}x{block}x{B}xf32>" in line for line in products) == product


@pytest.mark.parametrize("form", ["cpu", "default"])
def test_memory_in_training_is_bounded(monkeypatch, form):
    """The bounds that the class states, and much less than all D activations, B D H numbers."""
    with_form(monkeypatch, form)
    batch, num_dims, hidden, block = 16, 1024, 64, 64
    network, order = NADE(num_dims, hidden, block=block), np.arange(num_dims)
    x = binary(batch, num_dims)
    params = network.init(jax.random.key(0), x, order)["params"]
    loss = lambda p, x: losses.bernoulli_nll(x, network.apply({"params": p}, x, order)).sum()  # noqa: E731
    stats = jax.jit(jax.grad(loss)).lower(params, x).compile().memory_analysis()
    # Copies of the parameters in the order of generation, their gradients, and x and the logits.
    fixed = 6 * num_dims * hidden + 8 * batch * num_dims
    bound = {"cpu": 8, "default": num_dims / block + 3 * block}[form]
    assert stats.temp_size_in_bytes / 4 < fixed + 1.2 * bound * batch * hidden
    assert fixed + 1.2 * bound * batch * hidden < batch * num_dims * hidden


def test_without_weights_every_dimension_costs_log_2():
    # A sigmoid inside the network would make the logits 0.5 and change the cost.
    num_dims = 12
    x, network = binary(B, num_dims), NADE(num_dims, H)
    zeros = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0), x, np.arange(num_dims)))
    logits = network.apply(zeros, x, np.arange(num_dims))
    np.testing.assert_allclose(losses.bernoulli_nll(x, logits), num_dims * np.log(2.0), rtol=1e-6)


def test_logits_are_not_confined_to_probabilities():
    num_dims = 3
    network = NADE(num_dims, H)
    x = binary(B, num_dims)
    params = network.init(jax.random.key(0), x, np.arange(num_dims))["params"]
    params["bias"] = jnp.asarray([-30.0, 0.0, 30.0])
    logits = np.asarray(network.apply({"params": params}, x, np.arange(num_dims)))
    assert logits[:, 0].max() < -20
    assert logits[:, 2].min() > 20


def test_jit_and_vmap_agree():
    num_dims, order = 10, RNG.permutation(10)
    x, network = binary(3, B, num_dims), NADE(num_dims, H)
    params = random_params(network, x[0], order)
    apply = lambda x: network.apply({"params": params}, x, order)  # noqa: E731
    mapped = jax.vmap(apply)(x)
    for i in range(3):
        np.testing.assert_allclose(mapped[i], jax.jit(apply)(x[i]), atol=1e-5)


def test_unexpected_and_missing_labels_raise():
    x, order, label = binary(B, 4), np.arange(4), jnp.zeros(B, jnp.int32)
    with pytest.raises(ValueError, match="label"):
        NADE(4, H).init(jax.random.key(0), x, order, label)
    with pytest.raises(ValueError, match="label"):
        NADE(4, H, num_classes=3).init(jax.random.key(0), x, order)
