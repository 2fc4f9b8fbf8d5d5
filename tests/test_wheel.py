"""The wheel holds the package, and what it installs trains, evaluates and opens a run from an empty folder."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import gm_jax

REPO = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_works_in_an_environment_without_the_clone():
    # The environment is new, but takes the dependencies from this one; `make wheel` downloads them too.
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_paths()["purelib"]}
    script = [REPO / "tools" / "try_wheel.sh", sys.executable, "--no-deps"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    first, *_, last = done.stdout.strip().splitlines()
    assert first.startswith(f"gm_jax {gm_jax.__version__} of ")
    assert "/environment/lib/" in first
    assert last == "opened runs/mine at step 4: samples (3, 8, 8, 1)"

    (wheel,) = (REPO / "dist").glob(f"gm_jax-{gm_jax.__version__}-py3-none-any.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(["git", "ls-files", "gm_jax"], cwd=REPO, capture_output=True, text=True, check=True)
    assert packed == set(tracked.stdout.split())
