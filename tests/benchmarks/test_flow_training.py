import pytest

from benchmarks import flow_training, timing

DEFAULT = "gm_jax, jaxlib's default flags"
POINTS = flow_training.REALNVP._replace(batch_size=4, steps=2)


def table(monkeypatch, at_least=1.5, units=2):
    """The table of two of ours and theirs, of samples that nobody has to wait for."""
    seconds = {"gm_jax": 0.2, DEFAULT: 0.4, "normflows": 0.5}
    rounds = [{name: timing.Sample(value, 0.0) for name, value in seconds.items()}] * timing.FEWEST_CLEAN
    monkeypatch.setattr(timing, "alternate", lambda cases, **_: rounds)
    cases = {name: timing.Case(None) for name in ("gm_jax", DEFAULT)}
    args = flow_training.Args()
    return flow_training.compare("a flow", cases, timing.Case(None), args, at_least=at_least, units=units)


def test_the_ratio_is_their_time_over_ours_and_the_goal_that_of_what_experiments_run(monkeypatch):
    found = table(monkeypatch)
    assert {name: ratio["median"] for name, ratio in found["ratios"].items()} == pytest.approx(
        {"gm_jax": 2.5, DEFAULT: 1.25}
    )
    assert [(cells[1], cells[5]) for cells in found["cells"]] == [("gm_jax", "at least 1.5: met"), (DEFAULT, "-")]
    assert [cells[5] for cells in table(monkeypatch, at_least=3.0)["cells"]] == ["at least 3: missed", "-"]
    assert [cells[5] for cells in table(monkeypatch, at_least=None)["cells"]] == ["-", "-"]


def test_times_are_those_of_one_unit(monkeypatch):
    assert table(monkeypatch, units=2)["seconds"] == pytest.approx({"gm_jax": 0.1, DEFAULT: 0.2, "normflows": 0.25})
    assert [cells[2:4] for cells in table(monkeypatch, units=2)["cells"]] == [["100", "250"], ["200", "250"]]


def test_the_report_names_the_flags_the_worst_difference_and_whether_compiling_is_quick_enough(monkeypatch):
    flows = [
        {
            "work": POINTS._replace(most_compile_seconds=most)._asdict(),
            "parity": parity,
            "compile_seconds": {"gm_jax": 5.0, DEFAULT: 4.0},
            "step": table(monkeypatch),
        }
        for most, parity in ((6.0, {"loss": 1e-8, "gradients": 2e-7}), (4.5, {"loss": 3e-8, "gradients": 1e-7}))
    ]
    results = {"flows": flows, "experiment_flags": "--flag", "machine": "a machine", "versions": {"jax": "0"}}
    report = flow_training.report(results)
    assert "XLA_FLAGS=--flag" in report
    assert "differs by 3e-08, a coupling's gradient by 2e-07" in report
    assert report.count("at most 6: met") == report.count("at most 4.5: missed") == 1


def test_the_parameters_of_both_sides_have_log_determinants():
    both = flow_training.variables(POINTS)
    layer = both["params"]["layers"]["layer"]
    assert layer["layers_2"]["log_scale"].all()
    last = layer["layers_0"]["network"]["Dense_1"]["kernel"]
    assert last[..., :1].all()
    assert not last[..., 1:].any()
    _, _, loss, grads = flow_training.evaluate(POINTS)
    assert 0.0 < loss < 100.0
    assert len(grads) == 64 * 4


def test_our_step_runs_on_batches_from_the_host(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    flow_training.make_steps(POINTS, flow_training.variables(POINTS), "")(1)
