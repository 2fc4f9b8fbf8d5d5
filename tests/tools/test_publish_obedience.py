"""Rates of obedience of a run become a table."""

import json
import shutil
from pathlib import Path

import pytest

from gm_jax import runner
from gm_jax.evaluation import obedience
from tests.tools.test_publish import COMMAND
from tools import publish_obedience, results

RUN = Path(__file__).parents[1] / "runner" / "data" / "legacy_vae"
SETS = ("obedience_seen", "obedience_held_out", "ceiling", "reconstructed", "floor")


def record(name, value, guidance, error=0.02):
    facts = {"unit": "share", "kind": "estimate", "data": "captions", "measure": "256 levels", "split": "test"}
    settings = {"guidance": guidance, "standard_error": error}
    return {"name": name, "value": value, **facts, "examples": 500, "settings": settings}


def publish(places):
    argv = [str(places / "run"), "--command", COMMAND, "--folder", str(places)]
    runner.program(publish_obedience.Config, publish_obedience.publish, argv)


@pytest.fixture
def places(tmp_path):
    shutil.copytree(RUN, tmp_path / "run")
    return tmp_path


def test_each_weight_has_a_row_between_the_data_and_shuffled_captions(places):
    found = [
        record(f"{name}_{attribute}", 0.001 * index + 0.01 * place + 0.1 * guidance, guidance)
        for place, name in enumerate(SETS)
        for index, attribute in enumerate(obedience.ATTRIBUTES)
        for guidance in (2.0, 0.0)
    ]
    (places / "run" / "results.json").write_text(json.dumps(found))
    publish(places)
    content = results.read("obedience", places)
    assert [row["id"] for row in content["rows"]] == [
        "ceiling-data",
        "reconstructed-data",
        "obedience_seen-0",
        "obedience_seen-2",
        "obedience_held_out-0",
        "obedience_held_out-2",
        "floor-0",
        "floor-2",
    ]
    lines = results.markdown(content).splitlines()
    assert lines[0].split(" | ")[2:] == [*obedience.ATTRIBUTES[:-1], f"{obedience.ATTRIBUTES[-1]} |"]
    assert lines[5].startswith("| samples, combinations of training | 2 | 0.20 ± 0.02 | 0.20 ± 0.02 |")
    assert lines[-1].startswith("| samples, captions shuffled | 2 | 0.24 ± 0.02 | 0.24 ± 0.02 |")


def test_rates_of_two_checkpoints_are_refused(places, capsys):
    found = [record("ceiling_digit", 0.5, 2.0), record("ceiling_digit", 0.9, 2.0)]
    (places / "run" / "results.json").write_text(json.dumps(found))
    with pytest.raises(SystemExit) as ended:
        publish(places)
    assert ended.value.code == 2
    assert "several rates ceiling with w = 2" in capsys.readouterr().err


def test_a_run_without_rates_is_refused(places, capsys):
    with pytest.raises(SystemExit) as ended:
        publish(places)
    assert ended.value.code == 2
    assert "has no rates of obedience" in capsys.readouterr().err
