"""The cache of compiled programs: on by default, the user's own, and a warning at most."""

import os
import shutil
import stat
import subprocess
import sys
import types
import zlib
from pathlib import Path

import pytest

from gm_jax.runner import compiled_programs, hardware

REPO = Path(__file__).parents[2]
TRAIN = (
    "--train.steps",
    "4",
    "--train.batch-size",
    "8",
    "--hidden",
    "8",
    "--latent-dim",
    "2",
    "--importance-samples",
    "2",
)


@pytest.fixture
def environ(monkeypatch, tmp_path):
    """The environment of a process that has not imported jax."""
    monkeypatch.delitem(sys.modules, "jax")
    return {"XDG_CACHE_HOME": str(tmp_path)}


def folder_of(environ):
    return Path(environ["JAX_COMPILATION_CACHE_DIR"])


def test_the_default_is_a_folder_of_the_users_own(environ, tmp_path):
    compiled_programs.set_default(environ)
    folder = folder_of(environ)
    assert folder.parent == tmp_path / "gm_jax/programs"
    for one in (folder, folder.parent):
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
    assert environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0.1"


@pytest.mark.parametrize(
    "choice",
    [
        {"JAX_COMPILATION_CACHE_DIR": "/elsewhere"},
        {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        {"JAX_ENABLE_COMPILATION_CACHE": "0"},
    ],
)
def test_a_choice_of_the_user_is_kept(environ, choice):
    environ |= choice
    before = dict(environ)
    compiled_programs.set_default(environ)
    assert environ == before


def test_an_empty_folder_name_turns_the_cache_off(environ, tmp_path):
    environ["JAX_COMPILATION_CACHE_DIR"] = ""
    compiled_programs.set_default(environ)
    assert "JAX_COMPILATION_CACHE_DIR" not in environ
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_set_after_jax_has_started(tmp_path):
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    compiled_programs.set_default(environ)
    assert environ == {"XDG_CACHE_HOME": str(tmp_path)}


def test_another_processor_or_number_of_cores_has_another_folder(environ, monkeypatch):
    found = []
    for cores, machine in ((1, "x86_64"), (2, "x86_64"), (2, "aarch64"), (2, "aarch64")):
        monkeypatch.setattr(hardware, "num_cores", lambda cores=cores: cores)
        monkeypatch.setattr(hardware.platform, "machine", lambda machine=machine: machine)
        environ.pop("JAX_COMPILATION_CACHE_DIR", None)
        compiled_programs.set_default(environ)
        found.append(folder_of(environ))
    assert len(set(found)) == 3
    assert found[2] == found[3]


def spoil(why, folder, monkeypatch):
    if why == "others may write into the folder":
        folder.chmod(0o777)
    elif why == "the folder belongs to somebody else, or is a link":
        folder.rename(folder.parent / "other")
        folder.symlink_to(folder.parent / "other")
    elif why == "the folder is not writable":
        monkeypatch.setattr(compiled_programs.os, "access", lambda *_: False)
    elif why == "the disk is almost full":
        monkeypatch.setattr(compiled_programs.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=10))
    else:
        shutil.rmtree(folder.parent)
        folder.parent.write_text("a file", encoding="utf-8")


@pytest.mark.parametrize(
    "why",
    [
        "others may write into the folder",
        "the folder belongs to somebody else, or is a link",
        "the folder is not writable",
        "the disk is almost full",
        "File exists",
    ],
)
def test_a_folder_that_cannot_be_used_is_one_warning(why, environ, monkeypatch, caplog):
    compiled_programs.set_default(environ)
    folder = folder_of(environ)
    del environ["JAX_COMPILATION_CACHE_DIR"]
    spoil(why, folder, monkeypatch)
    compiled_programs.set_default(environ)
    assert "JAX_COMPILATION_CACHE_DIR" not in environ
    (record,) = caplog.records
    assert record.getMessage() == f"compiled programs are not kept for the next command: {why}: {folder}"


def test_a_folder_that_others_can_replace_is_not_used(environ, tmp_path, caplog):
    tmp_path.chmod(0o777)
    compiled_programs.set_default(environ)
    assert "JAX_COMPILATION_CACHE_DIR" not in environ
    assert f"others may write into {tmp_path}" in caplog.text
    tmp_path.chmod(0o1777)  # sticky, as /tmp
    compiled_programs.set_default(environ)
    assert "JAX_COMPILATION_CACHE_DIR" in environ


def test_a_folder_that_others_can_read_is_closed(environ):
    compiled_programs.set_default(environ)
    folder = folder_of(environ)
    folder.chmod(0o755)
    del environ["JAX_COMPILATION_CACHE_DIR"]
    compiled_programs.set_default(environ)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_entry_of_somebody_else_is_removed(environ, monkeypatch):
    compiled_programs.set_default(environ)
    entry = folder_of(environ) / "planted-cache"
    entry.write_bytes(zlib.compress(b"code"))
    os.utime(entry, (0, 0))
    monkeypatch.setattr(compiled_programs.os, "getuid", lambda: 12345)
    compiled_programs._remove_damaged(entry.parent)
    assert not entry.exists()


def test_entries_that_are_half_written_are_removed_once_and_whole_ones_stay(environ):
    compiled_programs.set_default(environ)
    folder = folder_of(environ)
    whole = zlib.compress(os.urandom(1000))
    contents = {"whole": whole, "half": whole[:500], "empty": b"", "another-format": b"(\xb5/\xfd" + whole}
    for name, content in contents.items():
        (folder / f"{name}-cache").write_bytes(content)
    (folder / "xla_gpu_per_fusion_autotune_cache_dir").mkdir()  # XLA's own, on a GPU
    del environ["JAX_COMPILATION_CACHE_DIR"]
    compiled_programs.set_default(environ)
    assert sorted(path.name for path in folder.iterdir()) == [
        *(".checked", "another-format-cache", "whole-cache", "xla_gpu_per_fusion_autotune_cache_dir")
    ]


def test_the_oldest_entries_go_if_there_are_too_many(environ, monkeypatch):
    monkeypatch.setattr(compiled_programs, "_MOST_BYTES", 2000)
    compiled_programs.set_default(environ)
    folder = folder_of(environ)
    for number in range(4):
        (folder / f"{number}-cache").write_bytes(b"(" * 900)
        os.utime(folder / f"{number}-cache", (number, number))
    del environ["JAX_COMPILATION_CACHE_DIR"]
    compiled_programs.set_default(environ)
    assert sorted(path.name for path in folder.iterdir()) == [".checked", "2-cache", "3-cache"]


def train(folder, cache):
    """Trains a small VAE in a process of its own, with a cache or without one; returns what it warned of."""
    environ = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environ |= {"PYTHONPATH": str(REPO)}
    environ |= {"JAX_ENABLE_COMPILATION_CACHE": "false"} if cache is None else {"XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "experiments.vae", "--workdir", str(folder), *TRAIN]
    return subprocess.run(command, env=environ, cwd=folder.parent, capture_output=True, text=True, check=True).stderr


@pytest.mark.slow
def test_the_bits_are_the_same_without_a_cache_and_from_one_with_damaged_entries(tmp_path, state_hash):
    cache = tmp_path / "cache"
    assert train(tmp_path / "without", None) == ""
    assert train(tmp_path / "empty", cache) == ""
    entries = sorted((cache / "gm_jax/programs").glob("*/*-cache"))
    assert len(entries) > 2
    for entry in entries[::2]:
        entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
        os.utime(entry, (0, 0))  # the damage is older than the last look, so that jax meets it
    assert "Error reading persistent compilation cache entry" in train(tmp_path / "damaged", cache)
    for name in ("empty", "damaged"):
        assert state_hash(tmp_path / name) == state_hash(tmp_path / "without"), name
