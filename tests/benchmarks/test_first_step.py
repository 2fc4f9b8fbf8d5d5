"""`benchmarks.first_step`: what it starts, and what it says if an experiment ends too soon."""

import stat
import sys

import pytest

from benchmarks import first_step


def fake_python(tmp_path, monkeypatch, script):
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable}\nimport sys, os, time\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(first_step.sys, "executable", str(path))


def test_all_experiments_are_started():
    assert {"vae", "ddpm", "rbm"} <= set(first_step.names())


def test_the_process_ends_at_its_first_loss_and_the_cache_is_the_given_one(tmp_path, monkeypatch):
    script = """
open(os.environ["XDG_CACHE_HOME"] + "/argv", "w").write(" ".join(sys.argv[1:]))
print("training"); print("step 50: loss 1.0"); time.sleep(600)"""
    fake_python(tmp_path, monkeypatch, script)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert 0 < first_step.seconds_to_first_step("vae", tmp_path / "run", tmp_path) < 600
    assert (tmp_path / "argv").read_text() == f"-m experiments.vae --workdir {tmp_path}/run --train.log-every 50"


def test_an_experiment_that_ends_before_its_first_step_is_an_error(tmp_path, monkeypatch):
    fake_python(tmp_path, monkeypatch, "print('error: no data')")
    with pytest.raises(RuntimeError, match=r"vae ended before its first step:\nerror: no data"):
        first_step.seconds_to_first_step("vae", tmp_path / "run", tmp_path)
