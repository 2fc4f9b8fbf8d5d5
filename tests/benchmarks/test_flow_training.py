from benchmarks import comparison, flow_training, timing, train_step

POINTS = flow_training.REALNVP._replace(batch_size=4, steps=2)


def test_the_report_has_the_worst_difference_and_the_compile_goal():
    rounds = [{"gm_jax": timing.Sample(0.2, 0.0), "normflows": timing.Sample(0.5, 0.0)}] * timing.FEWEST_CLEAN
    flows = [
        {
            "work": POINTS._replace(most_compile_seconds=most)._asdict(),
            "parity": parity,
            "compile_seconds": {"gm_jax": 5.0, comparison.UNFLAGGED: 4.0},
            "step": comparison.of_rounds(str(POINTS), rounds, ("gm_jax",), ("normflows",), at_least=2.0),
        }
        for most, parity in ((6.0, {"loss": 1e-8, "gradients": 2e-7}), (4.5, {"loss": 3e-8, "gradients": 1e-7}))
    ]
    report = flow_training.report({"flows": flows})
    assert report.count("at least 2: met") == 2
    assert "differs by 3e-08, gradients by at most 2e-07" in report
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


def test_our_step_runs_on_batches_from_the_host():
    train_step.make_run(flow_training.training, (POINTS, flow_training.variables(POINTS)))(1)
