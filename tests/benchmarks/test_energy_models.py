"""Both sides of the benchmark of energy-based models do the same work."""

import pytest

from benchmarks import energy_models


@pytest.mark.parametrize("name", energy_models.STEP_SIZES)
@pytest.mark.parametrize("make", [energy_models.make_ours, energy_models.make_blackjax])
def test_kernels_run_on_either_side(make, name, monkeypatch):
    monkeypatch.setattr(energy_models, "STEPS", 2)
    monkeypatch.setattr(energy_models, "CHAINS", 3)
    make(name)(1)


@pytest.mark.parametrize("make", [energy_models.make_our_rbm, energy_models.make_scikit_learn])
def test_epochs_run_on_either_side(make, monkeypatch):
    for size, value in (("VISIBLE", 6), ("HIDDEN", 4), ("BATCH", 5), ("EXAMPLES", 20)):
        monkeypatch.setattr(energy_models, size, value)
    make()(2)
    assert set(energy_models.data().ravel()) == {0, 1}
