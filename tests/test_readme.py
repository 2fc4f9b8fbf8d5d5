"""What the README shows runs as printed, and the pages name files that exist."""

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
    assert names["step"] == 20
    assert sorted(names["state"].params) == ["vae"]


def test_the_training_example_trains_and_samples(ranks_may_differ):
    names = {}
    exec(EXAMPLES[2], names)
    assert names["samples"].shape == (64, 8, 8, 1)
    assert int(names["current"].step) == 1000
    # In nats; independent pixels have 24.4 on the test split.
    assert 10.0 < float(np.mean(names["metrics"]["loss"])) < 20.0


def test_the_example_of_a_gan_has_two_players_that_move(ranks_may_differ):
    import jax
    import optax

    from gm_jax.training import state, step

    names = {"jax": jax, "optax": optax}
    exec(EXAMPLES[3], names)
    model, optimizers = names["family"].model, names["optimizers"]
    batch = {"x": np.random.default_rng(0).integers(0, 17, (4, 8, 8, 1)).astype(np.uint8)}
    first = state.create(model, optimizers, jax.random.key(0), batch)
    second, metrics = jax.jit(step.make_train_step(model, optimizers, seed=0))(first, batch)
    for player in ("discriminator", "generator"):
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), first.params[player], second.params[player])
        assert all(jax.tree.leaves(moved)), player
        assert float(metrics[f"{player}/grad_norm"]) > 0.0


PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_and_link_of_a_page_exists(page):
    text = page.read_text(encoding="utf-8")
    for path in set(re.findall(r"`((?:gm_jax/)?(?:[a-z_]+/)+[a-z_]+\.py)`", text)):
        assert (REPO / path).exists() or (REPO / "gm_jax" / path).exists(), path
    for link in set(re.findall(r"\]\(([^)#:]+)\)|src=\"([^\"]+)\"", text)):
        assert (page.parent / "".join(link)).exists(), link


def test_the_readme_stays_short_and_names_nothing_outside_of_the_repository():
    text = (REPO / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 170
    for page in PAGES:
        assert "../shared" not in page.read_text(encoding="utf-8")


def test_every_experiment_is_in_the_index():
    text = (REPO / "docs" / "finding-formulas.md").read_text()
    for path in (REPO / "experiments").glob("*.py"):
        assert path.name == "__init__.py" or f"experiments/{path.name}" in text, path.name
