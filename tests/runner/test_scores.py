"""Mistakes with score-based models on the command line: one clear message, exit code 2 and no file."""

import numpy as np
import pytest

from experiments import consistency, ddpm, edm, flow_matching, meanflow, score_sde
from gm_jax.data import sources

MISTAKES = [
    (edm, ["--sampler.corrector-steps", "2"], "--sampler.corrector-steps 2 has no effect on heun"),
    (score_sde, ["--sampler.method", "dpmpp", "--sampler.churn", "5"], "--sampler.churn 5.0 has no effect on dpmpp"),
    (edm, ["--likelihood.tolerance", "0"], "likelihood.tolerance must be more than 0, got 0"),
    (flow_matching, ["--sampler.steps", "0"], "sampler.steps must be at least 1, got 0"),
    (ddpm, ["--sampler.method", "dpmpp", "--sampler.steps", "1"], "--sampler.steps 1 is too few for dpmpp"),
    (meanflow, ["--sampling-steps", "0"], "sampling-steps must be at least 1, got 0"),
    (edm, ["--guidance", "1"], "--guidance 1.0 needs a model with labels: add --labels"),
    (meanflow, ["--guidance", "1"], "--guidance 1.0 needs a model with labels: add --labels"),
    (edm, ["--data.name", "large", "--labels"], "has no labels to condition on: leave out --labels"),
    (edm, ["--data.name", "large", "--likelihood.probes", "0"], "an exact divergence in 784 dimensions"),
    (edm, ["--data.name", "toy:two_moons", "--augment", "0.1"], "--augment turns images of at least 4x4"),
    (flow_matching, ["--reflow", "1"], "reflow must be at least 0 and less than 1, got 1"),
    (consistency, ["--times", "1"], "--times 1 leaves no neighbours to be consistent: use at least 2"),
]


@pytest.mark.parametrize(
    ("experiment", "arguments", "message"),
    MISTAKES,
    ids=[f"{one.__name__.rpartition('.')[2]} {' '.join(arguments)}" for one, arguments, _ in MISTAKES],
)
def test_a_mistake_is_a_short_error_and_writes_nothing(experiment, arguments, message, command, tmp_path, monkeypatch):
    load = sources.load

    def with_large_images(name, *args):
        if name != "large":
            return load(name, *args)
        splits = {split: {"x": np.zeros((64, 28, 28, 1), np.uint8)} for split in ("train", "validation", "test")}
        return sources.Source(sources.Spec(name, (28, 28, 1), 256, None, "0" * 64), splits)

    monkeypatch.setattr(sources, "load", with_large_images)
    ended = command(*arguments, "--workdir", tmp_path / "run", experiment=experiment)
    assert ended.code == 2, ended
    assert message in " ".join(ended.err.split())
    assert ended.err.startswith("error: ")
    assert len(ended.err.splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []
