"""A finished run shows its results again at once, unless something of them is missing."""

import pytest

from gm_jax.evaluation import results
from gm_jax.runner import conclusion
from gm_jax.runner.run import reopen
from tests.run_fixtures import STEPS


@pytest.mark.slow
def test_a_finished_run_shows_its_results_again_at_once(finished, command, tiny, monkeypatch):
    (finished / "evaluated.json").unlink(missing_ok=True)
    first = command("--workdir", finished, *tiny).out
    monkeypatch.setattr("gm_jax.runner.measure.measure_run", None)  # nothing is measured again
    again = command("--workdir", finished, *tiny)
    assert again.code == 0
    assert again.out.startswith(f"the run is complete: these are its results at step {STEPS}; `evaluate` measures")
    shown = [text.partition("test split of ")[2].replace("drawing ...\n", "") for text in (first, again.out)]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("change", ["no picture", "no result", "damaged", "another step"])
def test_results_that_are_not_all_there_are_not_shown_again(change, finished, monkeypatch):
    run = reopen(finished)
    assert conclusion.show_again(run, last=STEPS)
    if change == "no picture":
        (finished / "curves.png").unlink()
    elif change == "no result":
        results.write(finished / "results.json", results.read(finished / "results.json")[1:])
    elif change == "damaged":
        (finished / "evaluated.json").write_text('{"last_step": 60, "gm_jax": 3')
    assert not conclusion.show_again(run, last=STEPS + (change == "another step"))
