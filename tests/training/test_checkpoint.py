"""A restore returns the bits that were saved; which checkpoints are kept, and which are refused."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from gm_jax.errors import UserError
from gm_jax.training import manifest
from gm_jax.training.checkpoint import Checkpointer
from tests.training.saved_states import abstract, assert_same_bits, listing, make_state, save_all, spoil_manifest

# Round trip.


def test_a_state_comes_back_bit_for_bit(two_saved):
    with Checkpointer(two_saved) as checkpointer:
        for like in (make_state(7), abstract(make_state(7))):
            restored = checkpointer.restore_latest(like)
            assert (restored.step, restored.metric) == (2, None)
            assert_same_bits(restored.state, make_state(2))


def test_nan_and_minus_zero_and_subnormals_keep_their_bits(tmp_path):
    bits = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 0x00000001, 0x7F800000], np.uint32)
    state = {"x": jnp.asarray(bits.view(np.float32))}
    with Checkpointer(tmp_path / "c") as checkpointer:
        checkpointer.save(1, state)
        restored = checkpointer.restore_latest(state)
    np.testing.assert_array_equal(np.asarray(restored.state["x"]).view(np.uint32), bits)


def test_paths_that_look_alike_stay_apart(tmp_path):
    state = {"a": {"b/c": jnp.ones(2), "b": {"c": jnp.full(2, 2.0)}}, "a.b": jnp.full(2, 3.0), "a/b": jnp.full(2, 4.0)}
    with Checkpointer(tmp_path / "c") as checkpointer:
        checkpointer.save(1, state)
        assert_same_bits(checkpointer.restore_latest(state).state, state)


@pytest.mark.two_devices
def test_a_state_on_two_devices_comes_back_on_two(tmp_path):
    replicated = jax.sharding.NamedSharding(jax.make_mesh((2,), ("batch",)), jax.sharding.PartitionSpec())
    state = jax.device_put(make_state(3), replicated)
    with Checkpointer(tmp_path / "c") as checkpointer:
        checkpointer.save(3, state)
        on_two = checkpointer.restore_latest(state).state
        on_one = checkpointer.restore_latest(make_state(0)).state
    assert_same_bits(on_two, make_state(3))
    assert_same_bits(on_one, make_state(3))
    assert all(leaf.sharding == replicated for leaf in jax.tree.leaves(on_two))
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(on_one))
    large = jax.device_put({"w": jnp.ones((512, 1024))}, replicated)  # large enough for its memory to be aligned
    with Checkpointer(tmp_path / "large") as checkpointer:
        checkpointer.save(3, large)
        on_two = (on_two, checkpointer.restore_latest(large).state)
    shards = [s.data.unsafe_buffer_pointer() for leaf in jax.tree.leaves(on_two) for s in leaf.addressable_shards]
    assert len(set(shards)) == len(shards), "a buffer is shared, and the step would donate it twice"


@pytest.mark.filterwarnings("error")
def test_a_state_may_be_donated_after_save_and_after_restore(tmp_path):
    advance = jax.jit(lambda state: jax.tree.map(lambda x: x + jnp.ones_like(x), state), donate_argnums=0)
    start = np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32)
    state = {"w": jnp.asarray(start), "n": jnp.int32(0)}
    with Checkpointer(tmp_path / "c") as checkpointer:
        checkpointer.save(1, state)
        for _ in range(5):
            state = advance(state)
        state = checkpointer.restore_latest(state).state
        np.testing.assert_array_equal(state["w"], start)
        np.testing.assert_array_equal(advance(state)["w"], start + 1)


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_orbax_alone_restores_what_was_saved(two_saved):
    arrays = ocp.PyTreeCheckpointer().restore(two_saved / "2" / "state")
    expected = manifest.leaves_by_path(make_state(2))
    assert arrays.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(arrays[path], leaf, strict=True)


def test_only_arrays_are_saved(tmp_path):
    with Checkpointer(tmp_path / "c") as checkpointer, pytest.raises(TypeError, match=r"state\['n'\] is a int"):
        checkpointer.save(1, {"n": 3})


def test_nothing_is_unpickled(two_saved, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    with Checkpointer(two_saved) as checkpointer:
        assert checkpointer.restore_latest(make_state(0)).step == 2


# Which are kept, and which is the best.


@pytest.mark.parametrize(
    ("metrics", "kept", "best"),
    [
        ({1: None, 2: None, 3: None, 4: None}, [3, 4], None),
        ({1: -90.0, 2: -91.0, 3: -92.0, 4: None}, [1, 3, 4], 1),
        ({1: None, 2: -91.0, 3: None, 4: None, 5: None}, [2, 4, 5], 2),
        ({1: -92.0, 2: -91.0, 3: -90.0, 4: -90.5}, [3, 4], 3),
        ({1: -90.0, 2: -90.0, 3: -91.0, 4: -91.0}, [2, 3, 4], 2),
        ({1: None, 2: -90.0, 3: -90.0}, [2, 3], 3),
        ({1: -90.0, 2: float("nan"), 3: float("inf"), 4: None}, [1, 3, 4], 1),
    ],
)
def test_the_latest_and_the_best_are_kept(tmp_path, metrics, kept, best):
    save_all(tmp_path, metrics, keep_latest=2)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == kept
        assert checkpointer.best_step() == best
        restored = checkpointer.restore_best(make_state(0))
        assert restored.step == (kept[-1] if best is None else best)
        assert restored.metric == (None if best is None else metrics[best])
        assert_same_bits(restored.state, make_state(restored.step))


def test_the_best_is_kept_over_a_restart(tmp_path):
    save_all(tmp_path, {1: -90.0, 2: -95.0}, keep_latest=1)
    save_all(tmp_path, {3: -94.0, 4: None, 5: -93.0}, keep_latest=1)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == [1, 5]
        assert checkpointer.best_step() == 1


def test_a_damaged_best_gives_way_to_the_second_best(tmp_path, caplog):
    save_all(tmp_path, {1: -91.0, 2: -90.0, 3: -92.0})
    spoil_manifest(tmp_path, 2)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.best_step() == 1
        assert checkpointer.restore_best(make_state(0)).step == 1
        assert "checkpoint 2" in caplog.text
        assert checkpointer.steps() == [1, 3]


def test_a_saved_step_is_kept_and_an_earlier_one_refused(copy_of_two):
    before = listing(copy_of_two)
    with Checkpointer(copy_of_two) as checkpointer:
        checkpointer.save(2, make_state(9))
        with pytest.raises(ValueError, match="step 1 comes after step 2"):
            checkpointer.save(1, make_state(1))
    assert listing(copy_of_two) == before


def test_one_step_is_restored_by_its_number_or_refused(copy_of_two):
    with Checkpointer(copy_of_two) as checkpointer:
        assert_same_bits(checkpointer.restore_step(make_state(0), 1).state, make_state(1))
        with pytest.raises(UserError, match=r"no checkpoint of step 3 .*\nchoose one of \[1, 2\]$"):
            checkpointer.restore_step(make_state(0), 3)
        spoil_manifest(copy_of_two, 2)
        with pytest.raises(UserError, match=r"checkpoint 2 .* is damaged: .*manifest"):
            checkpointer.restore_step(make_state(0), 2)


def test_a_folder_renamed_to_another_step_is_damaged(copy_of_two, caplog):
    (copy_of_two / "2").rename(copy_of_two / "7")
    with Checkpointer(copy_of_two) as checkpointer:
        assert checkpointer.restore_latest(make_state(0)).step == 1
    assert "it holds step 2" in caplog.text


# Reading only.


def test_reading_creates_nothing(tmp_path):
    with Checkpointer(tmp_path / "none" / "here", read_only=True) as checkpointer:
        assert checkpointer.restore_latest(make_state(0)) is None
        assert checkpointer.restore_best(make_state(0)) is None
        assert checkpointer.steps() == []
        assert checkpointer.best_step() is None
        with pytest.raises(ValueError, match="read-only"):
            checkpointer.save(1, make_state(1))
    assert list(tmp_path.iterdir()) == []


def test_reading_falls_back_and_moves_nothing(copy_of_two, caplog):
    spoil_manifest(copy_of_two, 2)
    before = listing(copy_of_two)
    with Checkpointer(copy_of_two, read_only=True) as checkpointer:
        assert checkpointer.restore_latest(make_state(0)).step == 1
        assert "using checkpoint 1 instead" in caplog.text
        assert checkpointer.restore_best(make_state(0)).step == 1
    assert listing(copy_of_two) == before


def test_a_relative_path_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_all("checkpoints", [1])
    assert (tmp_path / "checkpoints" / "1").is_dir()


# Checkpoints of something else.


def test_another_model_is_refused_by_its_leaves_and_nothing_is_moved(copy_of_two):
    before = listing(copy_of_two)
    state = make_state(0, width=6)
    state.model_state["new"] = jnp.ones(2)
    del state.model_state["flag"]
    state.model_state["counts"] = state.model_state["counts"].astype(jnp.float32)
    with Checkpointer(copy_of_two) as checkpointer, pytest.raises(UserError) as caught:
        checkpointer.restore_latest(state)
    message = str(caught.value)
    assert "belongs to another model" in message
    assert len(message.splitlines()) == 3
    assert ".model_state['counts'] was int32[4], is float32[4]" in message
    assert ".model_state['flag'] was bool[], is missing" in message
    assert ".model_state['new'] was missing, is float32[2]" in message
    assert "and 5 more" in message
    assert listing(copy_of_two) == before


def test_containers_without_leaves_may_differ(two_saved):
    like = make_state(0)._replace(ema_params={})
    with Checkpointer(two_saved) as checkpointer:
        assert_same_bits(checkpointer.restore_latest(like).state, make_state(2)._replace(ema_params={}))


def test_another_fingerprint_is_refused_with_its_difference(tmp_path):
    save_all(tmp_path, [1], fingerprint={"seed": "0", "lr": "0.1", "data": "digits"})
    other = Checkpointer(tmp_path, fingerprint={"seed": "0", "lr": "0.2", "beta": "4"})
    with other as checkpointer, pytest.raises(UserError) as caught:
        checkpointer.restore_latest(make_state(0))
    assert "beta was missing, is 4; data was digits, is missing; lr was 0.1, is 0.2" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3
    for fingerprint in ({"data": "digits", "lr": "0.1", "seed": "0"}, None):
        with Checkpointer(tmp_path, fingerprint=fingerprint, read_only=True) as checkpointer:
            assert checkpointer.restore_latest(make_state(0)).step == 1
