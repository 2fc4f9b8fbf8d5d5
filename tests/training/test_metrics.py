"""The record of a run: exact numbers, the same file after a resume, and the step of a value that is not finite."""

import json
import math

import numpy as np
import pytest

from gm_jax.training import metrics

# What a run writes: a line of training every 2 steps, one of validation every 4, checkpoints at 4, 8 and 12.
WRITES = [
    (at, split, values)
    for at in range(2, 13, 2)
    for split, values in [
        ("train", {"loss": 1.0 / at, "grad_norm": math.sqrt(at) * 1e-7}),
        ("validation", {"log_prob": -100.0 / 3 - at}),
    ]
    if split == "train" or at % 4 == 0
]
CHECKPOINTS = (0, 4, 8, 12)


def write(path, *, after=0, up_to=12):
    """Writes the lines of the run from its checkpoint at `after` on."""
    log = metrics.MetricsLog(path, step=after)
    for at, split, values in WRITES:
        if after < at <= up_to:
            log.write(at, split, values)
    log.close()
    return log


def as_lines(writes):
    return [metrics.Line(*written) for written in writes]


def test_a_line_is_one_json_object_with_step_and_split_first(tmp_path):
    write(tmp_path / "metrics.jsonl")
    first, *_, last = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert first == f'{{"step": 2, "split": "train", "loss": 0.5, "grad_norm": {math.sqrt(2) * 1e-7!r}}}'
    assert json.loads(last) == {"step": 12, "split": "validation", "log_prob": -100.0 / 3 - 12}
    assert metrics.read(tmp_path / "metrics.jsonl") == as_lines(WRITES)


def test_a_run_cut_at_any_byte_ends_with_the_file_of_the_whole_run(tmp_path):
    write(tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "metrics.jsonl"
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in {0, *(end + offset for end in ends for offset in (-20, -1, 0, 1))}:
        path.write_bytes(whole[:cut])
        num_whole = whole[:cut].count(b"\n")
        # A checkpoint is saved after its lines, so the run resumes from one whose lines are complete.
        after = max(
            step for step in CHECKPOINTS if all(at > step or i < num_whole for i, (at, *_) in enumerate(WRITES))
        )
        write(path, after=after)
        assert path.read_bytes() == whole, cut


def test_a_run_stopped_between_checkpoints_ends_with_the_file_of_the_whole_run(tmp_path):
    write(tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    for stop in range(13):
        path = tmp_path / f"stopped-{stop}.jsonl"
        write(path, up_to=stop)
        write(path, after=stop)
        assert path.read_bytes() == whole, stop


def test_opening_at_a_step_drops_the_lines_after_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path)
    log = metrics.MetricsLog(path, step=6)
    log.close()
    expected = as_lines(written for written in WRITES if written[0] <= 6)
    assert log.lines == metrics.read(path) == expected
    assert len(expected) == 4


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\n",
        b"\x00\x00\x00\x00\n",
        b"\xff\xfe\x80 not text\n",
        b"5\n",
        b"null\n",
        b"{}\n",
        b'{"step": 5}\n',
        b"\n",
        b'{"step": 5, "split": "train", "loss": 0.2}',  # whole but for its end: a number may go on
    ],
)
def test_lines_from_the_first_incomplete_one_on_are_dropped(tmp_path, garbage):
    path = tmp_path / "metrics.jsonl"
    write(path, up_to=4)
    good = path.read_bytes()
    later = b'{"step": 4, "split": "train", "loss": 0.1}\n' if garbage.endswith(b"\n") else b""
    path.write_bytes(good + garbage + later)
    kept = as_lines(written for written in WRITES if written[0] <= 4)
    assert metrics.read(path) == kept
    metrics.MetricsLog(path, step=12).close()
    assert path.read_bytes() == good


def test_reading_a_missing_file_gives_no_lines_and_creates_nothing(tmp_path):
    assert metrics.read(tmp_path / "metrics.jsonl") == []
    assert list(tmp_path.iterdir()) == []


def test_every_float32_comes_back_exactly(tmp_path):
    words = np.random.default_rng(0).integers(0, 2**32, size=2000, dtype=np.uint32)
    special = np.array([0.0, -0.0, 1e-45, np.finfo(np.float32).tiny, np.finfo(np.float32).max, 0.1, 1 / 3], np.float32)
    values = np.concatenate([special, words.view(np.float32)])
    values = values[np.isfinite(values)]
    log = metrics.MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, "train", {f"metric-{i}": value for i, value in enumerate(values)})
    log.close()
    (line,) = metrics.read(tmp_path / "metrics.jsonl")
    read = np.array(list(line.values.values()))
    assert read.dtype == np.float64
    np.testing.assert_array_equal(read.astype(np.float32).view(np.uint32), values.view(np.uint32))
    np.testing.assert_array_equal(read, values.astype(np.float64))
    assert log.lines == [line]


def test_a_line_is_flushed_at_once(tmp_path):
    log = metrics.MetricsLog(tmp_path / "metrics.jsonl")
    for count, written in enumerate(WRITES, start=1):
        log.write(*written)
        assert metrics.read(tmp_path / "metrics.jsonl") == as_lines(WRITES[:count])
    log.close()


def test_column_follows_one_metric_of_one_split_across_a_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, up_to=8)
    log = write(path, after=8)
    assert log.column("validation", "log_prob") == [(at, -100.0 / 3 - at) for at in (4, 8, 12)]
    assert log.column("train", "loss") == [(at, 1.0 / at) for at in range(2, 13, 2)]
    assert log.column("train", "log_prob") == log.column("test", "loss") == []


@pytest.mark.parametrize("values", [{"loss": math.nan}, {"loss": math.inf}, {"step": 1.0}, {"loss": 1.0, "split": 2.0}])
def test_values_that_the_file_cannot_hold_are_refused(tmp_path, values):
    log = metrics.MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, "train", {"loss": 1.0})
    with pytest.raises(ValueError, match=r"JSON|cannot be named"):
        log.write(2, "train", values)
    log.close()
    assert log.lines == metrics.read(tmp_path / "metrics.jsonl") == [metrics.Line(1, "train", {"loss": 1.0})]


def test_curves_group_lines_by_split_and_metric():
    found = metrics.curves(as_lines(WRITES))
    assert {split: list(named) for split, named in found.items()} == {
        "train": ["loss", "grad_norm"],
        "validation": ["log_prob"],
    }
    assert found["train"]["loss"] == [(at, 1.0 / at) for at in range(2, 13, 2)]
    assert found["validation"]["log_prob"] == [(at, -100.0 / 3 - at) for at in (4, 8, 12)]
    assert metrics.curves([]) == {}


def test_means_are_taken_in_float64():
    # In float32 the ones are lost beside 2**24.
    values = {"loss": np.array([2**24, 1, 1, 1], np.float32), "count": np.array([1, 2], np.int32)}
    assert metrics.mean_over_steps(values, 4) == {"loss": (2**24 + 3) / 4, "count": 1.5}
    huge = np.full(3, np.finfo(np.float32).max, np.float32)
    assert metrics.mean_over_steps({"loss": huge}, 3) == {"loss": float(huge[0])}


def test_means_are_over_the_steps_at_which_a_player_takes_part():
    values = {
        "a/loss": np.array([5.0, 7.0, 0.0, 0.0]),
        "a/takes_part": np.array([1.0, 1.0, 0.0, 0.0]),
        "b/loss": np.zeros(4),
        "b/takes_part": np.zeros(4),
        "c/loss": np.array([1.0, 2.0, 3.0, 4.0]),
    }
    assert metrics.mean_over_steps(values, 4) == {"a/loss": 6.0, "c/loss": 2.5}
    alone = {name.removeprefix("a/"): column for name, column in values.items() if name.startswith("a/")}
    assert metrics.mean_over_steps(alone, 4) == {"loss": 6.0}
    assert metrics.mean_over_steps({name: np.zeros(4) for name in alone}, 4) == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("index", range(4))
def test_the_step_of_a_value_that_is_not_finite_is_named(bad, index):
    values = np.arange(4, dtype=np.float32)
    values[index] = bad
    with pytest.raises(metrics.NonFiniteError) as caught:
        metrics.mean_over_steps({"fine": np.zeros(4, np.float32), "loss": values}, last_step=8)
    error = caught.value
    assert (error.step, error.name) == (5 + index, "loss")  # the call took steps 5, 6, 7 and 8
    np.testing.assert_equal(error.value, bad)
    assert str(error) == f"loss became {bad} at step {5 + index}"


def test_the_first_step_and_its_first_metric_are_named():
    nan, ok = np.nan, 0.0

    def blamed(**columns):
        with pytest.raises(metrics.NonFiniteError) as caught:
            metrics.mean_over_steps({name: np.array(column) for name, column in columns.items()}, last_step=3)
        return caught.value.step, caught.value.name

    assert blamed(a=[ok, ok, nan], b=[ok, nan, nan]) == (2, "b")
    assert blamed(a=[ok, nan, ok], b=[ok, nan, ok]) == (2, "a")
    assert blamed(a=[np.inf, -np.inf, ok], b=[nan, ok, ok]) == (1, "a")  # no warning on the way, either


def test_a_log_that_was_removed_is_written_again_at_the_next_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = metrics.MetricsLog(path)
    for step in (1, 2):
        log.write(step, "train", {"loss": 0.5})
        if step == 1:
            path.unlink()
            log.sync()
    log.sync()
    log.close()
    assert [line.step for line in metrics.read(path)] == [1, 2]
