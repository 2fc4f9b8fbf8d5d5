"""What a command shows where there is no terminal, and on one."""

import re

import jax
import pytest

from gm_jax.runner import terminal


@pytest.mark.slow
def test_a_header_says_what_is_trained_on_what_and_where(command, tiny, tmp_path):
    out = command("--workdir", tmp_path / "run", *tiny, "--train.steps", "20").out
    head = dict(re.findall(r"(?m)^(data|parameters|device|training) +(.+)$", out))
    assert head["data"] == "digits: 1,437 train, 180 validation, 180 test examples of 8x8x1, 17 levels"
    encoder, decoder = 64 * 16 + 16 + 2 * (16 * 2 + 2), 2 * 16 + 16 + 16 * 64 + 64
    assert head["parameters"] == f"{encoder + decoder:,}"
    assert head["device"].startswith(f"{jax.device_count()} x cpu, jax {jax.__version__}")
    assert head["training"] == f"20 steps of 32 examples, in {tmp_path / 'run'}"
    lines = re.findall(r"(?m)^step (\d+): loss [\d.]+, [\d,]+ examples/s, \d+:\d\d left$", out)
    assert lines == ["4", "8", "12", "16", "20"]  # without a terminal: a line for each --train.log-every


class _Terminal:
    """A stream that claims to be a terminal."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def fileno(self):
        raise OSError("no file")

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass


def test_on_a_terminal_work_has_a_bar_that_names_its_parts(monkeypatch, capsys):
    stream = _Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with terminal.progress("evaluating", 3) as before:
        for name in ("nll", "nll", "samples", "one too many"):
            before(name)
    assert "evaluating: samples" in stream.text
    assert "3/3" in stream.text
    assert "4/3" not in stream.text
    assert capsys.readouterr().out == ""


def test_without_a_terminal_work_has_one_line(capsys):
    with terminal.progress("drawing", 3) as before:
        before("samples")
    assert capsys.readouterr().out == "drawing ...\n"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (725.0, "12:05"), (3 * 3600 + 245, "3:04:05")]
)
def test_durations_have_hours_only_if_they_need_them(seconds, shown):
    assert terminal.duration(seconds) == shown
