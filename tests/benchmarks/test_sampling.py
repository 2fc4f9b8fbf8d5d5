import pytest

from benchmarks import sampling, timing
from benchmarks.torch_parity import Pair

WORK = sampling.Work("tiny", Pair("MADE", {"num_dims": 16, "hidden": 3}), 2, 8, 2, times_naive=50, times_torch=500)
PAIRS = {
    "made": Pair("MADE", {"num_dims": 36, "hidden": 5}),
    "nade": Pair("NADE", {"num_dims": 36, "hidden": 5}),
    "pixelcnn": Pair("PixelCNN", {"side": 6, "features": 4, "layers": 1, "first_size": 3, "size": 3}),
    "gated_pixelcnn": Pair("GatedPixelCNN", {"side": 6, "features": 4, "layers": 1, "first_size": 3, "size": 3}),
    "transformer": Pair("Transformer", {"side": 6, "features": 4, "heads": 2, "layers": 2}),
    "wavenet": Pair("WaveNet", {"length": 36, "levels": 5, "features": 4, "skip": 4, "layers": 2}, levels=5),
}


def rounds(times=timing.FEWEST_CLEAN):
    samples = {"cached": (0.01, 9), "naive": (0.4, 3), "PyTorch": (0.5, 1)}
    return [{name: timing.Sample(seconds, 0.0, count) for name, (seconds, count) in samples.items()}] * times


def test_the_naive_loops_are_scaled_up_to_all_positions():
    row = sampling.network_row(WORK, rounds())
    assert row["seconds"] == pytest.approx({"cached": 0.01, "naive": 0.8, "PyTorch": 4.0})
    assert row["ratios"]["naive"]["median"] == pytest.approx(80)
    assert row["ratios"]["PyTorch"]["median"] == pytest.approx(400)
    assert "at least 50: met" in row["cells"]
    assert "at least 500: missed" in row["cells"]


def test_timed_positions_are_counted():
    row = sampling.network_row(WORK, rounds(5))
    assert row["positions"] == {"all": 16, "naive": 5 * 3 * 8, "PyTorch": 5 * 1 * 2}


def test_growth_is_relative_to_the_side_before():
    row = sampling.growth_row(4, 4, rounds(), before={"cached": 0.0025, "naive": 0.1})
    assert row["seconds"] == pytest.approx({"cached": 0.01, "naive": 1.6})
    assert row["cells"][:5] == ["4", "0.01", "x4.0", "1.6", "x16.0"]
    assert sampling.growth_row(4, 4, rounds(), before={})["cells"][2] == "-"


def test_the_report_has_both_tables():
    results = {
        "networks": [{**sampling.network_row(WORK, rounds()), "parity": {"outputs": 3e-7}}],
        "growth": [sampling.growth_row(4, 4, rounds(), before={})],
    }
    report = sampling.report(results)
    assert report.count("|--") >= 2
    assert "differ from ours by 3e-07" in report


@pytest.mark.parametrize("name", PAIRS)
def test_cached_and_naive_samplers_draw_the_same(name):
    assert sampling.differing_draws(PAIRS[name], 2) == 0


def test_every_network_has_a_name():
    assert set(sampling.Name.__args__) == {*sampling.WORKS, "growth"}
