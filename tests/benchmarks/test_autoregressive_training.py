from benchmarks import autoregressive_training, comparison, timing, train_step
from benchmarks.torch_parity import Pair

TINY = Pair("MADE", {"num_dims": 784, "hidden": 2})
WORK = autoregressive_training.Work("tiny", TINY, 4, at_least=1.5, others=(("other", TINY),))


def test_the_report_has_all_rows_and_the_worst_difference():
    rounds = [{"gm_jax": timing.Sample(0.1, 0.0), "PyTorch": timing.Sample(0.25, 0.0)}] * timing.FEWEST_CLEAN
    step = comparison.of_rounds(str(WORK), rounds, ("gm_jax",), ("PyTorch",), at_least=1.5)
    parities = ({"loss": 1e-8, "gradients": 2e-7}, {"loss": 3e-8, "gradients": 1e-7})
    report = autoregressive_training.report({"training": [{**step, "parity": list(parities)}] * 2})
    assert report.count("| tiny, batch 4 | gm_jax | 100 | PyTorch | 250") == 2
    assert "differs by 3e-08, gradients by at most 2e-07" in report


def test_our_step_runs_on_batches_from_the_host():
    train_step.make_run(autoregressive_training.training, (WORK,))(1)
