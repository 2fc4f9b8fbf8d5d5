"""What the README shows runs as printed, and it stays short; test_pages.py looks at every page."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).parents[1]
EXAMPLES = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text(), flags=re.DOTALL)


@pytest.fixture
def ranks_may_differ():
    """A newcomer's jax: the strictness of our own tests is not theirs."""
    import jax

    with jax.numpy_rank_promotion("allow"):
        yield


def test_the_first_example_is_the_weighted_elbo_by_hand(ranks_may_differ):
    names = {}
    exec(EXAMPLES[0], names)
    x, mean, log_var, logits = (np.asarray(names[name], np.float64) for name in ("x", "mean", "log_var", "logits"))
    nll = np.sum(np.log1p(np.exp(logits)) - x * logits)
    kl = 0.5 * np.sum(np.exp(log_var) + mean**2 - 1 - log_var)
    np.testing.assert_allclose(names["loss"], nll + 4.0 * kl, rtol=1e-5)


def test_a_run_is_opened_as_the_readme_shows(tmp_path):
    shutil.copytree(REPO / "tests" / "runner" / "data" / "legacy_vae", tmp_path / "vae")
    names = {}
    exec(EXAMPLES[1].replace("runs/vae", str(tmp_path / "vae")), names)
    assert names["run"].step == 20
    assert names["x"].shape == (16, 8, 8, 1)
    assert (names["bound"].kind, names["bound"].log_prob.shape) == ("lower_bound", (16,))


def test_the_training_example_trains_and_samples(ranks_may_differ):
    names = {}
    exec(EXAMPLES[2], names)
    assert names["samples"].shape == (64, 8, 8, 1)
    assert int(names["current"].step) == 1000
    # In nats; independent pixels have 24.4 on the test split.
    assert 10.0 < float(np.mean(names["metrics"]["loss"])) < 20.0


def test_the_readme_stays_short():
    text = (REPO / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 170
    assert len(text.encode()) <= 10_000
