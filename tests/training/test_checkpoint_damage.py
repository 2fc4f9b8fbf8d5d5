"""Damage of any kind is detected or survived, and so is a fault while a checkpoint is saved."""

import logging
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.training.checkpoint import Checkpointer
from tests.training.saved_states import assert_same_bits, files_of, listing, make_state, spoil, spoil_manifest

WRITER = pathlib.Path(__file__).with_name("_checkpoint_writer.py")


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
