"""A tiny VAE on digits, trained by the real runner: in this process, or in one of its own if it is to die."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments import vae
from gm_jax import runner
from gm_jax.runner.run import reopen
from gm_jax.training.checkpoint import Checkpointer

REPO = pathlib.Path(__file__).resolve().parents[1]
FAULTY = REPO / "tests" / "runner" / "_faulty.py"

STEPS = 60
EVERY = 10  # steps from one checkpoint to the next
TINY = (
    *("--hidden", "16", "--latent-dim", "2", "--importance-samples", "3", "--validation-samples", "2"),
    *("--train.steps", str(STEPS), "--train.batch-size", "32", "--train.steps-per-call", "2"),
    *("--train.log-every", "4", "--train.checkpoint-every", str(EVERY), "--train.patience", "0"),
    *("--optimizer.schedule", "constant", "--optimizer.warmup-steps", "5"),
)


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def compiled_programs(tmp_path_factory) -> pathlib.Path:
    """One cache of compiled programs for all runs, here and in subprocesses: they compile the same programs."""
    return tmp_path_factory.mktemp("xla")


@pytest.fixture(scope="module", autouse=True)
def compiled_once(compiled_programs) -> Iterator[None]:
    """Turns the cache on for the tests of this folder only."""
    settings = {
        "jax_compilation_cache_dir": str(compiled_programs),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    compilation_cache.reset_cache()
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def command(capsys):
    """(*arguments, experiment=vae) -> Ended: runs a command of an experiment in this process."""

    def run(*arguments: object, experiment=vae) -> Ended:
        capsys.readouterr()
        code = 0
        try:
            runner.main(experiment.CONFIG, [str(argument) for argument in arguments], module=experiment)
        except SystemExit as exit_:
            code = exit_.code
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return run


@pytest.fixture(scope="session")
def process(compiled_programs):
    """(*arguments, fault, experiment="vae") -> Ended: runs a command in a process of its own, with a fault."""
    environment = os.environ | {
        "PYTHONPATH": str(REPO),
        "JAX_COMPILATION_CACHE_DIR": str(compiled_programs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

    def run(*arguments: object, fault: str = "", experiment: str = "vae") -> Ended:
        done = subprocess.run(
            [sys.executable, FAULTY, *map(str, arguments)],
            env=environment | {"FAULT": fault, "EXPERIMENT": experiment},
            cwd=REPO,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def whole(tmp_path_factory, process) -> pathlib.Path:
    """The folder of a tiny run that nothing interrupted; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    ended = process("train", "--workdir", folder, *TINY)
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture
def finished(whole, tmp_path) -> pathlib.Path:
    """A copy of `whole`."""
    return pathlib.Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """The flags of the tiny run."""
    return TINY


@pytest.fixture(scope="session")
def state_hash():
    """Folder -> SHA-256 of every leaf, under its path, of the latest checkpoint; and that checkpoint's step."""

    def hash_(folder: pathlib.Path) -> tuple[str, int]:
        run = reopen(folder)
        with Checkpointer(folder / "checkpoints", read_only=True) as checkpointer:
            step = checkpointer.steps()[-1]
            state = checkpointer.restore_step(run.abstract_state(), step).state
        leaves, _ = jax.tree_util.tree_flatten_with_path(state)
        digest = hashlib.sha256()
        for path, leaf in leaves:
            array = np.asarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode() + array.tobytes())
        paths = " ".join(jax.tree_util.keystr(path) for path, _ in leaves)
        assert all(part in paths for part in (".step", ".params", ".ema_params", ".opt_state"))
        return digest.hexdigest(), step

    return hash_


@pytest.fixture(scope="session")
def contents():
    """Folder -> {relative path: bytes} of every file in it."""

    def read(folder: pathlib.Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read
