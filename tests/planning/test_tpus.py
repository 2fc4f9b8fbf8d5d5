"""The table of chips: its numbers agree with each other and with the documented numbers of whole pods."""

import math

import pytest

from gm_jax.errors import UserError
from gm_jax.planning.tpus import CHIPS, parse_slice

_UNITS = {"teraflops": 1e12, "TFLOPs": 1e12, "GB": 2**30, "GiB": 2**30, "GBps": 1e9}

# As printed on the pages: peak in bf16, HBM (GB mean GiB, see tpus.py), its bandwidth, and the interconnect in both
# directions together.
_PRINTED = {
    "v4": ("275 teraflops", "32 GiB", "1200 GBps", None),  # no number for the links of a chip
    "v5e": ("197 TFLOPs", "16 GB", "819 GBps", "400 GBps"),
    "v5p": ("459 TFLOPs", "95 GiB", "2765 GBps", "1200 GBps"),
    "v6e": ("918 TFLOPs", "32 GB", "1638 GBps", "800 GBps"),
}


def in_units_of_one(printed):
    number, unit = printed.split()
    return float(number) * _UNITS[unit]


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_every_number_is_the_one_on_its_page(chip):
    peak, memory, bandwidth, both_directions = _PRINTED[chip.name]
    assert chip.peak_flops == in_units_of_one(peak)
    assert chip.hbm_bytes == in_units_of_one(memory)
    assert chip.hbm_bandwidth == in_units_of_one(bandwidth)
    if both_directions is not None:
        assert chip.ici_bandwidth == in_units_of_one(both_directions) / 2
    assert chip.source == f"https://docs.cloud.google.com/tpu/docs/{chip.name}"


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_a_chip_does_some_hundreds_of_operations_per_byte(chip):
    assert 100 < chip.peak_flops / chip.hbm_bandwidth < 700
    assert chip.hbm_bandwidth > chip.ici_bandwidth


@pytest.mark.parametrize(
    ("topology", "peak", "all_reduce"),
    [("v4:16x16x16", 1.1e18, 1.1e15), ("v5e:16x16", 50.63e15, 51.2e12), ("v6e:16x16", 234.9e15, 102.4e12)],
)
def test_whole_pods_have_their_documented_numbers(topology, peak, all_reduce):
    pod = parse_slice(topology)
    assert pod.num_chips == pod.chip.pod_chips
    assert pod.num_chips * pod.chip.peak_flops == pytest.approx(peak, rel=0.03)  # v4's number has two digits
    # A chip's share of the all-reduce bandwidth is what it sends over all links: half of both directions.
    assert pod.num_chips * pod.ici_bandwidth == pytest.approx(all_reduce)


def test_a_slice_is_parsed_from_its_name():
    wanted = parse_slice("v5p:4x8x16")
    assert (wanted.chip.name, wanted.shape, wanted.num_chips) == ("v5p", (4, 8, 16), 512)
    assert wanted.name == "v5p:4x8x16"


@pytest.mark.parametrize(
    ("topology", "links"),
    [
        ("v5e:1x1", 0),  # no neighbour
        ("v5e:2x2", 2),  # a square: one neighbour along each axis
        ("v5e:4x8", 2),  # a mesh: lines along both axes
        ("v5e:8x16", 3),  # the longer axis wraps around
        ("v5e:16x16", 4),  # a torus: every link
        ("v4:2x2x1", 2),
        ("v4:2x2x4", 3),  # less than a cube of 4x4x4: a mesh
        ("v5p:2x4x4", 3),
        ("v5p:4x4x4", 6),  # a cube: a torus
        ("v5p:4x4x6", 3),  # not made of cubes
        ("v5p:8x8x8", 6),
    ],
)
def test_a_chip_uses_the_links_that_its_slice_has(topology, links):
    wanted = parse_slice(topology)
    each = wanted.chip.ici_bandwidth / (2 * wanted.chip.axes)
    assert wanted.ici_bandwidth == pytest.approx(links * each)


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5e", "is not a topology"),
        ("v5e:", "is not a topology"),
        ("v5e:0x4", "is not a topology"),
        ("v5litepod:4x4", "is not a topology"),
        ("v5e:4x4x", "is not a topology"),
        ("v5e:2x2x2", "have 2 axes"),
        ("v4:2x2", "have 3 axes"),
        ("v5e:32x32", "largest slice of v5e has 256"),
    ],
)
def test_an_invalid_slice_is_refused_in_at_most_two_lines(topology, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_slice(topology)
    lines = str(caught.value).splitlines()
    assert len(lines) <= 2
    assert topology in lines[0]


def test_the_examples_in_error_messages_are_slices():
    with pytest.raises(UserError) as caught:
        parse_slice("")
    for example in str(caught.value).partition("For example: ")[2].split(", "):
        assert math.prod(parse_slice(example).shape) > 1
