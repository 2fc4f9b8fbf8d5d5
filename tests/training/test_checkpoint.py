"""A restore returns the bits that were saved, or reports that it cannot, for any damage to the files."""

import logging
import os
import pathlib
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from gm_jax.errors import UserError
from gm_jax.training import manifest
from gm_jax.training.checkpoint import Checkpointer

WRITER = pathlib.Path(__file__).with_name("_checkpoint_writer.py")


class State(NamedTuple):
    step: jax.Array
    params: dict[str, Any]
    ema_params: dict[str, Any] | None
    opt_state: dict[str, Any]
    model_state: dict[str, Any]


def make_state(seed: int, width: int = 5) -> State:
    """Makes a state with random leaves, because a lost zero that is read as zero would look restored."""
    rng = np.random.default_rng(seed)
    params = {
        "vae": {
            "kernel": jnp.asarray(rng.standard_normal((3, width)), jnp.float32),
            # Stored outside of the index; Orbax compares checksums only of the index.
            "large": jnp.asarray(rng.standard_normal((64, 128)), jnp.float32),
            "half": jnp.asarray(rng.standard_normal(width), jnp.bfloat16),
            "empty": {},
            "absent": None,
        }
    }
    opt_state = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params["vae"])
    opt_state = jax.tree.map(lambda x: x + jnp.asarray(rng.integers(1, 100, x.shape), x.dtype), opt_state)
    model_state = {"counts": jnp.asarray(rng.integers(-9, 9, (4,)), jnp.int32), "flag": jnp.asarray(True)}
    return State(jnp.asarray(seed, jnp.int32), params, None, {"vae": opt_state}, model_state)


def abstract(state: State) -> State:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, jax.Array)
        assert (a.dtype, a.shape) == (e.dtype, e.shape)
        assert np.asarray(a).tobytes() == np.asarray(e).tobytes()


def save_all(directory, steps, **kwargs):
    """Saves make_state(step) for each step; if `steps` is a dict, its values are the metrics."""
    with Checkpointer(directory, **kwargs) as checkpointer:
        for step in steps:
            checkpointer.save(step, make_state(step), metric=steps[step] if isinstance(steps, dict) else None)


def files_of(directory) -> list[pathlib.Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file())


def listing(directory) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(directory)): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"")
        for p in [directory, *directory.rglob("*")]
    }


def spoil(path: pathlib.Path, byte: int = -1, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def spoil_manifest(directory, step):
    spoil(directory / str(step) / "manifest" / "metadata", byte=-10)


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    """Two good checkpoints, 1 and 2; each test that damages them works on a copy."""
    directory = tmp_path_factory.mktemp("good") / "checkpoints"
    save_all(directory, [1, 2])
    return directory


@pytest.fixture
def copy_of_two(two_saved, tmp_path):
    return pathlib.Path(shutil.copytree(two_saved, tmp_path / "checkpoints"))


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


# Damage.


def assert_right_or_fallen_back(directory, caplog) -> int:
    """Restores, and asserts right bits for the restored step and a warning if it is not the newest."""
    caplog.clear()
    with Checkpointer(directory) as checkpointer:
        restored = checkpointer.restore_latest(make_state(0))
    assert_same_bits(restored.state, make_state(restored.step))
    warnings = [r for r in caplog.records if r.name == "gm_jax" and r.levelno == logging.WARNING]
    assert len(warnings) == (0 if restored.step == 2 else 1)
    if restored.step == 1:
        message = warnings[0].getMessage()
        assert message.startswith("checkpoint 2 in ")
        assert "using checkpoint 1 instead" in message
        assert "\n" not in message
        assert not (directory / "2").exists()
        shutil.rmtree(directory / "damaged-2")
    return restored.step


def mend(directory, two_saved):
    shutil.rmtree(directory / "2", ignore_errors=True)
    shutil.copytree(two_saved / "2", directory / "2")


def test_every_flipped_bit_is_detected(copy_of_two, two_saved, caplog):
    rng = np.random.default_rng(0)
    files = files_of(copy_of_two / "2")
    for i in range(48):
        path = files[i % len(files)]  # in turn, because random choice by size would hit only the large ones
        spoil(path, byte=rng.integers(path.stat().st_size), bit=rng.integers(8))
        assert_right_or_fallen_back(copy_of_two, caplog)  # a restore does not need every byte
        mend(copy_of_two, two_saved)


def test_a_flipped_bit_of_a_value_is_detected(copy_of_two, caplog):
    # Where Orbax puts the values differs from run to run, so that one bit flips in every file that can hold them.
    size = make_state(2).params["vae"]["large"].nbytes
    holders = [path for path in files_of(copy_of_two / "2") if path.stat().st_size > size // 2]
    for path in holders:
        spoil(path, byte=path.stat().st_size // 2)
    assert holders
    assert assert_right_or_fallen_back(copy_of_two, caplog) == 1


def test_every_truncated_file_is_detected(copy_of_two, two_saved, caplog):
    steps = []
    for i, path in enumerate(files_of(copy_of_two / "2")):
        os.truncate(path, (0, path.stat().st_size // 2, path.stat().st_size - 1)[i % 3])
        steps.append(assert_right_or_fallen_back(copy_of_two, caplog))
        mend(copy_of_two, two_saved)
    assert 1 in steps


def test_every_missing_file_is_detected(copy_of_two, two_saved, caplog):
    steps = []
    for path in files_of(copy_of_two / "2"):
        path.unlink()
        steps.append(assert_right_or_fallen_back(copy_of_two, caplog))
        mend(copy_of_two, two_saved)
    assert 1 in steps


def test_every_changed_byte_of_the_manifest_is_detected(copy_of_two, two_saved, caplog):
    size = (copy_of_two / "2" / "manifest" / "metadata").stat().st_size
    for byte in np.linspace(2, size - 3, 15).astype(int):
        spoil(copy_of_two / "2" / "manifest" / "metadata", byte=byte, bit=0)
        assert assert_right_or_fallen_back(copy_of_two, caplog) == 1
        mend(copy_of_two, two_saved)


def test_wrong_values_in_sound_files_are_detected(copy_of_two, caplog):
    # The state of another step with this step's manifest: every file is sound, every value is wrong.
    shutil.rmtree(copy_of_two / "2" / "state")
    shutil.copytree(copy_of_two / "1" / "state", copy_of_two / "2" / "state")
    assert assert_right_or_fallen_back(copy_of_two, caplog) == 1
    assert "SHA-256 of .model_state['counts']; " in caplog.text


def test_a_step_moved_aside_can_be_saved_and_moved_again(copy_of_two):
    for _ in range(2):
        spoil_manifest(copy_of_two, 2)
        with Checkpointer(copy_of_two) as checkpointer:
            assert checkpointer.restore_latest(make_state(0)).step == 1
            checkpointer.save(2, make_state(2))
            assert_same_bits(checkpointer.restore_latest(make_state(0)).state, make_state(2))
    assert {p.name for p in copy_of_two.iterdir()} == {"1", "2", "damaged-2", "damaged-2-2"}


def test_training_continues_although_an_old_checkpoint_is_damaged(copy_of_two):
    for path in files_of(copy_of_two / "1"):
        spoil(path, byte=0)
    with Checkpointer(copy_of_two, keep_latest=2) as checkpointer:
        checkpointer.save(3, make_state(3))
        checkpointer.wait()
        assert checkpointer.steps() == [2, 3]


def test_if_all_are_damaged_the_run_stops_and_nothing_is_moved(copy_of_two):
    spoil_manifest(copy_of_two, 1)
    spoil_manifest(copy_of_two, 2)
    before = listing(copy_of_two)
    with Checkpointer(copy_of_two) as checkpointer:
        for restore in (checkpointer.restore_latest, checkpointer.restore_best):
            with pytest.raises(UserError, match="only 2 damaged") as caught:
                restore(make_state(0))
            assert len(str(caught.value).splitlines()) <= 3
    assert listing(copy_of_two) == before


def test_with_only_moved_checkpoints_left_the_run_does_not_start_again(copy_of_two):
    shutil.rmtree(copy_of_two / "1")
    (copy_of_two / "2").rename(copy_of_two / "damaged-2")
    with Checkpointer(copy_of_two) as checkpointer, pytest.raises(UserError, match=r"only 1 damaged\ndamaged-2\n"):
        checkpointer.restore_latest(make_state(0))


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


# Faults while saving.


def test_a_killed_save_leaves_the_previous_checkpoint(tmp_path):
    repository = WRITER.parents[2]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, WRITER, tmp_path], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "1").is_dir()
    assert list(tmp_path.glob("2.orbax-checkpoint-tmp*"))
    like = {"w": jax.ShapeDtypeStruct((4, 1 << 22), jnp.float32)}
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == [1]
        restored = checkpointer.restore_latest(like)
        assert restored.step == 1
        checkpointer.save(3, {"n": jnp.int32(3)})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "3"]


def test_after_a_killed_first_save_there_is_no_checkpoint(tmp_path):
    (tmp_path / "1.orbax-checkpoint-tmp").mkdir()
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore_latest(make_state(0)) is None


@pytest.fixture
def no_large_files():
    """Makes writing more than 64 KB to a file fail, as late as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("surface", ["save", "wait", "close", "restore_latest"])
def test_a_failed_background_save_is_reported_and_the_next_one_works(tmp_path, no_large_files, surface):
    state = {"w": jnp.asarray(np.random.default_rng(0).standard_normal(1 << 16), jnp.float32)}
    next_call = {
        "save": lambda c: c.save(2, state),
        "wait": lambda c: c.wait(),
        "close": lambda c: c.close(),
        "restore_latest": lambda c: c.restore_latest(state),
    }
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, state)
    with pytest.raises(UserError, match="checkpoint 1 could not be written") as caught:
        next_call[surface](checkpointer)
    assert "File too large" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert checkpointer.steps() == []
    no_large_files()
    checkpointer.save(3, state)
    checkpointer.close()
    assert checkpointer.steps() == [3]


def test_a_failed_save_deletes_no_older_checkpoint(tmp_path, no_large_files):
    large = {"w": jnp.asarray(np.random.default_rng(0).standard_normal(1 << 16), jnp.float32)}
    with Checkpointer(tmp_path, keep_latest=1) as checkpointer:
        checkpointer.save(1, make_state(1))
        checkpointer.save(2, large)
        with pytest.raises(UserError, match="checkpoint 2"):
            checkpointer.wait()
        assert_same_bits(checkpointer.restore_latest(make_state(0)).state, make_state(1))


def test_a_folder_that_cannot_be_created_is_reported_at_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    checkpointer = Checkpointer(tmp_path / "file" / "checkpoints")
    with pytest.raises(UserError, match="checkpoint 1 could not be written"):
        checkpointer.save(1, make_state(1))
    checkpointer.close()


@pytest.mark.parametrize(("surface", "wrapped"), [("save", False), ("wait", False), ("wait", True)])
def test_a_lost_process_is_not_reported_as_a_full_disk(tmp_path, monkeypatch, surface, wrapped):
    lost = jax.errors.JaxRuntimeError("UNAVAILABLE: the connection to process 1 was lost")

    def fail(*args, **kwargs):
        if wrapped:
            raise ValueError("the save failed") from lost
        raise lost

    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, make_state(1))
    checkpointer.wait()
    manager = checkpointer._open_manager()
    act = lambda: checkpointer.save(2, make_state(2))  # noqa: E731
    if surface == "wait":
        checkpointer.save(2, make_state(2))
        act = checkpointer.wait
    manager.wait_until_finished()
    name = {"save": "save", "wait": "wait_until_finished"}[surface]
    with monkeypatch.context() as patch:
        patch.setattr(manager, name, fail)
        patch.setattr(jax, "process_count", lambda: 2)
        with pytest.raises(jax.errors.JaxRuntimeError, match="UNAVAILABLE"):
            act()
    checkpointer.close()
    alone = Checkpointer(tmp_path)
    alone.save(3, make_state(3))
    with monkeypatch.context() as patch:
        patch.setattr(alone._open_manager(), "wait_until_finished", fail)
        with pytest.raises(UserError, match="could not be written"):
            alone.wait()
