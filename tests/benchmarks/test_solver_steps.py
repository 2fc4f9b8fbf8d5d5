import jax
import pytest

from benchmarks import solver_steps


@pytest.mark.slow
def test_a_unit_of_work_draws_all_samples(monkeypatch):
    drawn = []
    wait = jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda x: drawn.append(x) or wait(x))
    solver_steps.make_run(solver_steps.SOLVER, 2)(1)
    assert drawn[-1].shape == (solver_steps.NUM_SAMPLES, 8, 8, 1)
