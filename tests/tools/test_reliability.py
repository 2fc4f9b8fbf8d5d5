"""`tools.reliability`: what it counts, and that it can see a difference."""

import json
import shutil
import signal

import pytest

from gm_jax import runner
from gm_jax.errors import UserError
from tools import finished_runs, reliability, results
from tools.reliability import Config, Counts, _Ended


def ended(code, out="", err=""):
    return _Ended(code, out, err, 1.0)


def test_a_process_obeys_a_signal_if_it_stops_or_has_nothing_left_to_do(tmp_path):
    def obeyed(code, out="", verb="train"):
        return reliability._obeyed(ended(code, out), signal.SIGTERM, verb, tmp_path, sent=0.0)

    assert obeyed(-signal.SIGTERM)
    assert obeyed(130)
    assert obeyed(0, "stopped at step 20 and saved; ...")
    assert not obeyed(0)
    assert not obeyed(0, verb="sample")
    assert not obeyed(1)
    assert obeyed(0, verb="evaluate")  # at its last picture
    for name in ("results.json", "samples.png", "curves.png"):
        (tmp_path / name).touch()
    assert not obeyed(0, verb="evaluate")  # all of it was still to come


def test_what_failed_is_no_success(monkeypatch, capsys):
    for bad in (Counts(2, 1), Counts(2, 2, swallowed=1), Counts(2, 2, hung=1)):
        monkeypatch.setattr(reliability, "_kill", lambda *_, bad=bad: bad)
        with pytest.raises(UserError, match="kills-vae: not all came back"):
            reliability.measure(Config(kills=1, signals=0, disks=0, cuts=0, experiments=("vae",)))
    assert "2 tried, 1 bit for bit equal" in capsys.readouterr().out


def test_the_counts_become_rows_and_other_rows_stay(monkeypatch, tmp_path):
    shutil.copy(results.RECORDS / "reliability.json", tmp_path)
    before = json.loads((tmp_path / "reliability.json").read_text())
    monkeypatch.setattr(reliability, "_kill", lambda *_: Counts(1234, 1234))
    config = Config(kills=1, signals=0, disks=0, cuts=0, experiments=("vae",), publish=True, folder=tmp_path)
    assert "Next: python -m tools.results" in reliability.measure(config)
    table = json.loads((tmp_path / "reliability.json").read_text())
    assert "1,234" in results.markdown(table)
    others = [row for row in before["rows"] if row["id"] != "kills-vae"]
    assert [row for row in table["rows"] if row["id"] != "kills-vae"] == others


def test_an_experiment_without_settings_is_refused(capsys):
    with pytest.raises(SystemExit) as exit_:
        runner.program(Config, reliability.measure, ["--experiments", "vae", "gpt"])
    assert exit_.value.code == 2
    assert "no settings for gpt" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_that_is_killed_stopped_and_starved_comes_back_and_another_one_is_seen(tmp_path, monkeypatch, capsys):
    flags = ("--kills", "1", "--signals", "1", "--disks", "1", "--cuts", "0", "--experiments", "vae")
    monkeypatch.setattr(reliability.tempfile, "TemporaryDirectory", lambda **_: _Kept(tmp_path))
    runner.program(Config, reliability.measure, list(flags))
    out = capsys.readouterr().out
    assert "kills-vae: 1 tried, 1 bit for bit equal, 0 swallowed, 0 hung" in out
    assert "signals-training: 1 tried, 0 swallowed, 0 hung" in out
    whole, other = tmp_path / "vae-warm", tmp_path / "other"
    found = finished_runs.digests(whole)
    assert max(found) == 200
    assert all(any(path.startswith(part) for path in found[200]) for part in (".params", ".ema_params", ".opt_state"))
    shutil.copytree(whole, other)
    assert finished_runs.same_end(whole, other)
    shutil.rmtree(other / "checkpoints" / "200")
    shutil.copytree(whole / "checkpoints" / "180", other / "checkpoints" / "200")
    assert not finished_runs.same_end(whole, other)


class _Kept:
    """A temporary directory that stays."""

    def __init__(self, path):
        self.path = str(path)

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        pass
