"""A checkpoint is on the disk before it has its name, and a save that fails says so once."""

import gc
import logging
import resource
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.training import orbax_files
from gm_jax.training.checkpoint import Checkpointer
from tests import power_cuts


def make_state(step: int) -> dict[str, jax.Array]:
    noise = np.random.default_rng(step).standard_normal((3, 64)).astype(np.float32)
    return {"w": jnp.asarray(noise), "large": jnp.asarray(np.tile(noise, (20, 1))), "step": jnp.asarray(step)}


def test_a_power_cut_at_any_moment_of_a_save_loses_that_save_alone(tmp_path, caplog):
    root, begun = tmp_path / "run", [0]
    root.mkdir()
    recorder = power_cuts.Recorder(root, note=lambda: begun[0])
    with recorder.watching(), Checkpointer(root / "checkpoints", keep_latest=1) as checkpointer:
        for step in range(1, 4):
            begun[0] = step
            checkpointer.save(step, make_state(step))
            checkpointer.wait()
    assert len(recorder.cuts) > 50
    restored_at = {}
    for cut in recorder.cuts:
        folder = power_cuts.write(cut.tree, tmp_path / "left")
        with Checkpointer(folder / "checkpoints", keep_latest=1) as checkpointer:
            restored = checkpointer.restore_latest(make_state(0))
        step = 0 if restored is None else restored.step
        assert step in (cut.note - 1, cut.note), cut.moment
        if restored is not None:
            np.testing.assert_array_equal(restored.state["large"], make_state(step)["large"])
        restored_at.setdefault(cut.note, set()).add(step)
        shutil.rmtree(folder)
    assert not [record for record in caplog.records if record.name == "gm_jax"]  # no checkpoint was damaged
    assert restored_at == {step: {step - 1, step} for step in range(1, 4)}


def test_without_the_syncs_the_model_of_a_power_cut_loses_everything(tmp_path, monkeypatch, caplog):
    """The test above can fail: this is how checkpoints were saved before."""
    for name in ("sync_tree", "sync_folder", "make_folder"):
        monkeypatch.setattr(f"gm_jax.training.orbax_files.{name}", lambda path: None)
    recorder = power_cuts.Recorder(tmp_path)
    with recorder.watching(), Checkpointer(tmp_path / "checkpoints") as checkpointer:
        checkpointer.save(1, make_state(1))
    power_cuts.write(recorder.cuts[-1].tree, tmp_path / "left")
    with Checkpointer(tmp_path / "left" / "checkpoints") as checkpointer, pytest.raises(UserError, match="damaged"):
        checkpointer.restore_latest(make_state(0))


def test_a_failed_save_of_many_arrays_prints_nothing_of_its_own(tmp_path, caplog, capfd):
    """Orbax logs a traceback for each of its threads, and Python prints one for each array."""
    state = {f"w{i}": jnp.asarray(np.random.default_rng(i).standard_normal(1 << 15), jnp.float32) for i in range(20)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        for step in range(1, 4):
            checkpointer = Checkpointer(tmp_path)
            checkpointer.save(step, state)
            with pytest.raises(UserError, match=f"checkpoint {step} could not be written"):
                checkpointer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    gc.collect()  # tasks whose errors nobody asked for
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr().err == ""


def test_an_array_that_finds_the_loop_closed_before_its_last_fragment_prints_nothing(tmp_path, capfd):
    """Whether one does so depends on the threads: here it is made."""

    async def write_fragment() -> None:
        """Is never awaited."""

    def forget(name: str) -> None:
        coroutine = write_fragment()
        coroutine.__qualname__ = name
        del coroutine

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        orbax_files.open_manager(tmp_path, 1, lambda step: None).close()
        forget("async_serialize_from_host.<locals>.write_fragment")
        forget("another")
    assert [str(warning.message) for warning in shown] == ["coroutine 'another' was never awaited"]
    warnings.simplefilter("error")  # pytest undoes it; Python then prints what it cannot raise
    forget("async_serialize_from_host.<locals>.write_fragment")
    assert capfd.readouterr().err == ""


def test_a_folder_that_cannot_be_written_fails_the_save_at_once(tmp_path, monkeypatch):
    """A thread that waits for a folder that another thread could not make would wait for five minutes."""
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        checkpointer.save(1, make_state(1))
        checkpointer.wait()
        (tmp_path / "checkpoints").rename(tmp_path / "aside")
        (tmp_path / "checkpoints").write_text("in the way")  # root may write to a folder that is read-only
        with pytest.raises(UserError, match="checkpoint 2 could not be written"):
            checkpointer.save(2, make_state(2))
