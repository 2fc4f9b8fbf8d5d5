"""The table of chips: its numbers agree with each other and with what its sources say of whole pods."""

import math

import pytest

from gm_jax.errors import UserError
from gm_jax.training.chips import CHIPS, parse_slice


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_the_units_are_flops_and_bytes_a_second(chip):
    # Decimal powers apart from any TPU: a slip of Gbit for GB, or of T for G, leaves these ranges.
    assert 100e12 < chip.peak_flops < 5000e12
    assert 8e9 < chip.hbm_bytes < 400e9
    assert 500e9 < chip.hbm_bandwidth < 10e12
    assert 100e9 < chip.ici_bandwidth < 2e12
    assert chip.source.startswith("https://docs.cloud.google.com/tpu/docs/")
    assert chip.source.rpartition("/")[2] == chip.name


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_a_balanced_chip_does_some_hundreds_of_operations_a_byte(chip):
    assert 100 < chip.peak_flops / chip.hbm_bandwidth < 700
    assert chip.hbm_bandwidth > chip.ici_bandwidth


@pytest.mark.parametrize(
    ("topology", "peak", "all_reduce"), [("v5e:16x16", 50.63e15, 51.2e12), ("v6e:16x16", 234.9e15, 102.4e12)]
)
def test_whole_pods_have_what_their_documents_say(topology, peak, all_reduce):
    pod = parse_slice(topology)
    assert pod.num_chips == pod.chip.pod_chips
    assert pod.num_chips * pod.chip.peak_flops == pytest.approx(peak, rel=0.005)
    # A chip's part of the pod's all-reduce bandwidth is what it sends over all links: half of both directions.
    assert pod.num_chips * pod.ici_bandwidth == pytest.approx(all_reduce)


def test_a_slice_is_its_name():
    wanted = parse_slice("v5p:4x8x16")
    assert (wanted.chip.name, wanted.shape, wanted.num_chips) == ("v5p", (4, 8, 16), 512)
    assert wanted.name == "v5p:4x8x16"


@pytest.mark.parametrize(
    ("topology", "links"),
    [
        ("v5e:1x1", 0),  # nobody to talk to
        ("v5e:2x2", 2),  # a square: one neighbour along each axis
        ("v5e:4x8", 2),  # a mesh: lines along both axes
        ("v5e:8x16", 3),  # the longer axis wraps around
        ("v5e:16x16", 4),  # a torus: every link
        ("v4:2x2x1", 2),
        ("v4:2x2x4", 4),
        ("v5p:8x8x8", 6),
    ],
)
def test_a_chip_uses_the_links_that_its_slice_has(topology, links):
    wanted = parse_slice(topology)
    each = wanted.chip.ici_bandwidth / (2 * wanted.chip.axes)
    assert wanted.ici_bandwidth == pytest.approx(links * each)


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        ("v5e", "is no topology"),
        ("v5e:", "is no topology"),
        ("v5e:0x4", "is no topology"),
        ("v5litepod:4x4", "is no topology"),
        ("v5e:4x4x", "is no topology"),
        ("v5e:2x2x2", "have 2 axes"),
        ("v4:2x2", "have 3 axes"),
        ("v5e:32x32", "largest slice of v5e has 256"),
    ],
)
def test_what_is_no_slice_is_refused_in_two_lines_at_most(topology, said):
    with pytest.raises(UserError, match=said) as caught:
        parse_slice(topology)
    lines = str(caught.value).splitlines()
    assert len(lines) <= 2
    assert topology in lines[0]


def test_the_examples_that_errors_give_are_slices():
    with pytest.raises(UserError) as caught:
        parse_slice("")
    for example in str(caught.value).partition("For example: ")[2].split(", "):
        assert math.prod(parse_slice(example).shape) > 1
