"""The state at step 0: its content, which depends on the key alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.errors import UserError
from gm_jax.training import state
from gm_jax.training.metrics import NonFiniteError
from gm_jax.types import Model, Objective

BATCH = {"x": np.random.default_rng(0).normal(loc=3.0, size=(16, 4)).astype(np.float32)}


def no_loss(params, model_state, key, batch):
    raise AssertionError("creating a state does not train")


def two_players():
    """Returns a random generator and a discriminator that is initialised from the data."""

    def init(key, batch):
        params = {
            "generator": {"w": jax.random.normal(key, (4, 4)), "b": jnp.zeros((4,))},
            "discriminator": {"mean": jnp.mean(batch["x"], axis=0)},
        }
        return params, {"count": jnp.zeros((), jnp.int32)}

    return Model(init, (Objective("generator", no_loss), Objective("discriminator", no_loss)), sample=None)


OPTIMIZERS = {"generator": optax.adam(0.1), "discriminator": optax.sgd(0.1)}


def create(seed=0, **kwargs):
    return state.create(two_players(), OPTIMIZERS, jax.random.key(seed), BATCH, **kwargs)


def bits(tree):
    return [(leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def test_a_fresh_state_holds_what_the_model_and_the_optimizers_make():
    fresh, (params, model_state) = create(), two_players().init(jax.random.key(0), BATCH)
    assert fresh.step.dtype == jnp.int32
    assert fresh.step.shape == ()
    assert int(fresh.step) == 0
    assert fresh.ema_params is None
    jax.tree.map(lambda left, right: np.testing.assert_allclose(left, right, rtol=1e-6), fresh.params, params)
    jax.tree.map(np.testing.assert_array_equal, fresh.model_state, model_state)
    expected = {player: OPTIMIZERS[player].init(params[player]) for player in OPTIMIZERS}
    assert jax.tree.structure(fresh.opt_state) == jax.tree.structure(expected)
    np.testing.assert_allclose(fresh.params["discriminator"]["mean"], BATCH["x"].mean(axis=0), rtol=1e-5)


def test_the_key_alone_decides_the_state():
    one, again, other = create(seed=1, ema=True), create(seed=1, ema=True), create(seed=2, ema=True)
    assert bits(one) == bits(again)
    assert np.all(np.asarray(one.params["generator"]["w"]) != np.asarray(other.params["generator"]["w"]))


def test_a_state_that_fits_no_memory_is_refused_with_both_sizes():
    small = {"x": jax.ShapeDtypeStruct((10, 10), jnp.float32), "key": jax.random.key(0)}
    num_bytes = 400 + jax.random.key(0).dtype.itemsize
    state.check_size(small, num_bytes)
    with pytest.raises(UserError, match=r"need 3\.8e-07 GB of memory; this machine has 3\.7"):
        state.check_size(small, num_bytes - 10)
    with pytest.raises(UserError, match=r"need 7\.45e\+09 GB"):  # more than 64 bits of bytes
        state.check_size({"x": jax.ShapeDtypeStruct((2 * 10**9, 10**9), jnp.float32)}, num_bytes)


def test_keeping_an_average_changes_nothing_else():
    without, kept = create(), create(ema=True)
    assert bits(without) == bits(kept._replace(ema_params=None))


def test_the_average_starts_as_a_copy_of_the_parameters():
    fresh = create(ema=True)
    assert bits(fresh.ema_params) == bits(fresh.params)
    before = bits(fresh.ema_params)
    for leaf in jax.tree.leaves(fresh.params):
        leaf.delete()  # as donation would
    assert bits(fresh.ema_params) == before


def test_no_two_leaves_share_a_buffer_even_if_the_model_returns_one_array_twice():
    # The step donates every leaf: donating a buffer twice crashes, and the batch's buffer must not be donated.
    def init(key, batch):
        w = jax.random.normal(key, (4,))
        return {"net": {"encoder": w, "decoder": w}}, {"initial": w, "data": batch["x"]}

    model, batch = Model(init, (Objective("net", no_loss),), sample=None), {"x": jnp.asarray(BATCH["x"])}
    fresh = state.create(model, {"net": optax.adam(0.1)}, jax.random.key(0), batch, ema=True)
    leaves = [*jax.tree.leaves(fresh), batch["x"]]
    pointers = {leaf.unsafe_buffer_pointer() for leaf in leaves}
    assert len(pointers) == len(leaves) == 13


def test_eval_params_are_the_average_or_else_the_parameters():
    params, average = {"generator": np.zeros(2)}, {"generator": np.ones(2)}
    assert state.TrainState(np.int32(3), params, None, {}, {}).eval_params is params
    assert state.TrainState(np.int32(3), params, average, {}, {}).eval_params is average


def test_a_state_is_a_tree_of_arrays():
    fresh = create(ema=True)
    leaves, structure = jax.tree.flatten(fresh)
    assert all(isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves)
    again = jax.tree.unflatten(structure, leaves)
    assert isinstance(again, state.TrainState)
    assert bits(again) == bits(fresh)


@pytest.mark.parametrize(
    "optimizers",
    [
        {"generator": optax.sgd(0.1)},
        {**OPTIMIZERS, "critic": optax.sgd(0.1)},
        {"generator": optax.sgd(0.1), "critic": optax.sgd(0.1)},
    ],
)
def test_optimizers_for_other_players_are_refused(optimizers):
    with pytest.raises(ValueError, match="players differ"):
        state.create(two_players(), optimizers, jax.random.key(0), BATCH)


@pytest.mark.parametrize("players", [("generator",), ("generator", "generator", "discriminator")])
def test_parameters_trained_by_no_objective_or_by_two_are_refused(players):
    model = two_players()._replace(objectives=tuple(Objective(player, no_loss) for player in players))
    with pytest.raises(ValueError, match="players differ"):
        state.create(model, OPTIMIZERS, jax.random.key(0), BATCH)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_number_that_is_not_finite_is_found_and_named(value, dtype):
    bad = create(ema=True)
    state.check_finite(7, bad)  # integers too
    mean = bad.opt_state["generator"][0].mu
    mean["w"] = mean["w"].at[3, 1].set(value).astype(dtype)
    with pytest.raises(NonFiniteError, match=rf"opt_state\['generator'\]\[0\].mu\['w'\] became {value} at step 7$"):
        state.check_finite(7, bad)


def test_infinity_that_the_optimiser_starts_with_is_meant_and_nan_is_not():
    plateau = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    first = state.create(two_players(), {**OPTIMIZERS, "generator": plateau}, jax.random.key(0), BATCH)
    assert any(np.isinf(leaf) for leaf in jax.tree.leaves(first.opt_state) if leaf.ndim == 0)
    state.check_finite(7, first, lambda: first)
    with pytest.raises(NonFiniteError, match=r"opt_state\['generator'\].*best_value became inf at step 7"):
        state.check_finite(7, first)

    def with_best(value):
        sgd, reduction = first.opt_state["generator"]
        reduction = reduction._replace(best_value=jnp.asarray(value, jnp.float32))
        return first._replace(opt_state={**first.opt_state, "generator": (sgd, reduction)})

    with pytest.raises(NonFiniteError, match="best_value became nan"):
        state.check_finite(7, with_best(np.nan), lambda: first)
    with pytest.raises(NonFiniteError, match="best_value became inf"):
        state.check_finite(7, first, lambda: with_best(1.0))
    params = {**first.params, "generator": jax.tree.map(lambda w: w.at[...].set(np.inf), first.params["generator"])}
    with pytest.raises(NonFiniteError, match=r"params.* became inf"):
        state.check_finite(7, first._replace(params=params), lambda: first._replace(params=params))


def test_the_first_state_is_made_only_if_there_is_an_infinity():
    def never():
        raise AssertionError

    state.check_finite(7, create(ema=True), never)
