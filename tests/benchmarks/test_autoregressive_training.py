import pytest

from benchmarks import autoregressive_training, timing
from benchmarks.torch_parity import Pair

DEFAULT = "gm_jax, jaxlib's default flags"
TINY = Pair("MADE", {"num_dims": 784, "hidden": 2})
WORK = autoregressive_training.Work("tiny", TINY, 4, at_least=1.5, others=(("other", TINY),))


def rows():
    seconds = {"gm_jax": 0.1, DEFAULT: 0.2, "PyTorch": 0.25, "other": 0.4}
    rounds = [{name: timing.Sample(value, 0.0) for name, value in seconds.items()}] * timing.FEWEST_CLEAN
    return autoregressive_training.rows_of(WORK, ("gm_jax", DEFAULT), rounds)


def test_there_is_a_row_for_each_of_ours_and_theirs():
    assert [(cells[2], cells[4]) for cells in rows()["cells"]] == [
        ("gm_jax", "PyTorch"),
        ("gm_jax", "other"),
        (DEFAULT, "PyTorch"),
        (DEFAULT, "other"),
    ]


def test_the_ratio_is_their_time_over_ours_and_the_goal_of_what_experiments_run_against_the_plain_network():
    assert [row["median"] for row in rows()["ratios"]] == pytest.approx([2.5, 4.0, 1.25, 2.0])
    assert [cells[7] for cells in rows()["cells"]] == ["at least 1.5: met", "-", "-", "-"]


def test_seconds_are_those_of_a_step():
    calls = autoregressive_training.STEPS_PER_CALL
    assert rows()["seconds_per_step"]["gm_jax"] == pytest.approx(0.1 / calls)


def test_the_report_names_the_flags_and_the_worst_difference():
    training = [{**rows(), "parity": [{"loss": 1e-8, "gradients": 2e-7}, {"loss": 3e-8, "gradients": 1e-7}]}]
    results = {"training": training, "experiment_flags": "--flag", "machine": "a machine", "versions": {"jax": "0"}}
    report = autoregressive_training.report(results)
    assert "XLA_FLAGS=--flag" in report
    assert "differs by 3e-08, a gradient by 2e-07" in report


def test_our_step_runs_on_batches_from_the_host(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    autoregressive_training.make_steps(WORK, "")(1)
