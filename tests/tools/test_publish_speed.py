"""`tools.publish_speed`: a benchmark's file becomes rows, and a file of something else is refused."""

import json

import pytest

from gm_jax import runner
from gm_jax.errors import UserError
from tools import publish_speed, results
from tools.publish_speed import Config


def measured(*, median=1.27):
    ratio = {"under": "gm_jax", "over": "scikit-learn", "median": median, "low": 1.11, "high": 1.33}
    comparison = {
        "title": "RBM, an epoch",
        "seconds": {"gm_jax": 0.0985, "scikit-learn": 0.1219},
        "ratios": [{**ratio, "clean": 9, "rounds": 15}],
        "cells": [["RBM, an epoch", "gm_jax", "98.5", "scikit-learn", "121.9", "1.27", "at least 3: missed", "9/15"]],
    }
    return {"machine": "two cores", "versions": {"jax": "0.10.2"}, "comparison": comparison}


def published(tmp_path, content):
    (tmp_path / "measured.json").write_text(json.dumps(content))
    config = Config(
        tmp_path / "measured.json", table="speed_test", command="python -m x", commit="385f8eb", folder=tmp_path
    )
    publish_speed.publish(config)
    return json.loads((tmp_path / "speed_test.json").read_text())


def test_a_pair_of_sides_is_a_row_and_a_second_measurement_replaces_it(tmp_path):
    published(tmp_path, measured(median=1.5))
    table = published(tmp_path, measured())
    shown = results.markdown(table)
    assert "| RBM, an epoch | gm_jax | 98.5 | scikit-learn | 122 | 1.27 (1.11 to 1.33) | 3 | 9 of 15 |" in shown
    assert [row["commit"] for row in table["rows"]] == ["385f8eb"]


def test_every_comparison_of_a_file_is_a_row_for_each_of_our_sides(tmp_path):
    comparison = measured()["comparison"]
    (ratio,), (cells,) = comparison["ratios"], comparison["cells"]
    comparison |= {
        "seconds": {**comparison["seconds"], "gm_jax, spread": 0.05},
        "ratios": [ratio, {**ratio, "under": "gm_jax, spread", "median": 2.4}],
        "cells": [cells, cells],
    }
    content = {
        "machine": "two cores",
        "matmul": 1e11,
        "versions": {},
        "of": [{"a": comparison}, {**comparison, "title": "x"}],
    }
    rows = published(tmp_path, content)["rows"]
    assert [row["id"] for row in rows] == [
        "rbm-an-epoch-scikit-learn",
        "rbm-an-epoch-spread-scikit-learn",
        "x-scikit-learn",
        "x-spread-scikit-learn",
    ]
    assert rows[1]["labels"]["our side"] == "gm_jax, spread"
    assert rows[1]["matmul"] == 1e11


def test_a_table_keeps_the_rows_of_a_side_of_another_name_and_refuses_several_sides_without_a_column(tmp_path):
    content = measured()
    content["comparison"]["ratios"][0]["under"] = "DPM-Solver++"
    content["comparison"]["seconds"]["DPM-Solver++"] = 0.1
    table = published(tmp_path, content)
    assert [row["id"] for row in table["rows"]] == ["rbm-an-epoch-scikit-learn"]
    table["columns"] = [column for column in table["columns"] if column.get("field") != "our side"]
    (tmp_path / "speed_test.json").write_text(json.dumps(table))
    assert len(published(tmp_path, content)["rows"]) == 1
    (ratio,) = content["comparison"]["ratios"]
    content["comparison"]["ratios"] = [ratio, {**ratio, "under": "gm_jax"}]
    content["comparison"]["cells"] *= 2
    with pytest.raises(UserError, match="no column for several sides of ours"):
        published(tmp_path, content)


def test_starts_of_experiments_have_the_seconds_that_the_cache_saves(tmp_path):
    starts = [{"experiment": "vae", "cold": 9.5, "warm": 6.0}]
    table = published(tmp_path, {"machine": "two cores", "versions": {}, "starts": starts})
    assert "| vae | 9.5 | 6.0 | 3.5 |" in results.markdown(table)


def test_a_ratio_without_an_undisturbed_round_is_not_published(tmp_path):
    with pytest.raises(UserError, match="RBM, an epoch has no undisturbed round"):
        published(tmp_path, measured(median=None))


@pytest.mark.parametrize("content", [{}, [], {"comparisons": [{"title": "x"}]}])
def test_another_file_is_refused(tmp_path, content):
    with pytest.raises(UserError, match=r"measured.json is not the --json file of a benchmark"):
        published(tmp_path, content)


def test_a_missing_file_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        runner.program(
            Config, publish_speed.publish, [str(tmp_path / "no.json"), "--table", "speed_test", "--command", "x"]
        )
    assert exit_.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
