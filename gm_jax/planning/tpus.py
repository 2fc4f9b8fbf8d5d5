"""TPU chips as Google documents them, and the slices that are made of them.

Peaks, not promises: the numbers are those of Google Cloud's documentation (each chip's `source`, read in November
2026), in units of 1. Memory is in powers of two: v4's and v5p's pages say GiB, v5e's and v6e's say GB of what their
compiler counts in GiB. All else is in powers of ten. What links a chip uses depends on its slice:

    an axis that wraps around is a ring            two links of each chip carry a ring's two directions
    an axis that does not is a line                the ring is folded onto it: as much as one link carries
    an axis of one chip                            no link
"""

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from gm_jax.errors import UserError

_EXAMPLES = "v5e:4x4, v5e:16x16, v6e:8x16, v4:2x2x1, v5p:8x8x8"


class Chip(NamedTuple):
    """One kind of TPU chip.

    Attributes:
        name: as topologies are named.
        peak_flops: FLOP/s of matrix products with bfloat16 inputs. jax multiplies float32 matrices so too on TPUs, in
            one pass, unless another `precision` is asked for.
        hbm_bytes: high-bandwidth memory, bytes. A program has a little less, or on v5p more, as the compiler says.
        hbm_bandwidth: bytes/s.
        ici_bandwidth: bytes/s that a chip sends to its neighbours over all its links together. The documents say both
            directions together, which is twice this.
        axes: of the network: 2 for a plane, 3 for a cube; a chip has two links an axis.
        pod_chips: how many chips the largest slice can have.
        wraps: shape of a slice -> whether each axis wraps around.
        source: where the numbers stand.
        options: what `get_topology_desc` must be told, so that a chip is one device, as it is on Cloud TPU.
    """

    name: str
    peak_flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ici_bandwidth: float
    axes: int
    pod_chips: int
    wraps: Callable[[tuple[int, ...]], tuple[bool, ...]]
    source: str
    options: Mapping[str, Any] = MappingProxyType({})


def _wraps_at_16(shape: tuple[int, ...]) -> tuple[bool, ...]:
    """Each axis by itself, where it is as long as the pod's."""
    return tuple(length == 16 for length in shape)


def _wraps_if_cubes(shape: tuple[int, ...]) -> tuple[bool, ...]:
    """All axes or none: the optical links that close them run between whole cubes of 4x4x4 chips."""
    return (all(length % 4 == 0 for length in shape),) * len(shape)


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            peak_flops=275e12,
            hbm_bytes=32 * 2**30,
            hbm_bandwidth=1200e9,
            ici_bandwidth=1.1e15 / 4096,  # the page gives the all-reduce bandwidth of a pod: 1.1 PB/s
            axes=3,
            pod_chips=4096,
            wraps=_wraps_if_cubes,
            source="https://docs.cloud.google.com/tpu/docs/v4",
            options=MappingProxyType({"chip_config_name": "megacore"}),  # both cores of a chip as one device
        ),
        Chip(
            name="v5e",
            peak_flops=197e12,
            hbm_bytes=16 * 2**30,
            hbm_bandwidth=819e9,  # "819 GBps"; other versions of the page round it to 800
            ici_bandwidth=400e9 / 2,
            axes=2,
            pod_chips=256,
            wraps=_wraps_at_16,
            source="https://docs.cloud.google.com/tpu/docs/v5e",
        ),
        Chip(
            name="v5p",
            peak_flops=459e12,
            hbm_bytes=95 * 2**30,
            hbm_bandwidth=2765e9,
            ici_bandwidth=1200e9 / 2,
            axes=3,
            pod_chips=6144,
            wraps=_wraps_if_cubes,
            source="https://docs.cloud.google.com/tpu/docs/v5p",
        ),
        Chip(
            name="v6e",
            peak_flops=918e12,
            hbm_bytes=32 * 2**30,
            hbm_bandwidth=1638e9,  # "1638 GBps"; older versions of the page round it to 1640 and 1600
            ici_bandwidth=800e9 / 2,
            axes=2,
            pod_chips=256,
            wraps=_wraps_at_16,
            source="https://docs.cloud.google.com/tpu/docs/v6e",
        ),
    )
}


class Slice(NamedTuple):
    """Chips wired to a grid: what a topology's name stands for.

    Attributes:
        chip: the kind.
        shape: chips along each axis.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The topology's name, e.g. "v5e:16x16"."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def num_chips(self) -> int:
        """How many chips it has."""
        return math.prod(self.shape)

    @property
    def ici_bandwidth(self) -> float:
        """Bytes/s that a chip sends in collectives over the whole slice; 0 for a single chip."""
        axes = zip(self.shape, self.chip.wraps(self.shape), strict=True)
        links = sum(0 if length == 1 else 2 if wraps else 1 for length, wraps in axes)
        return self.chip.ici_bandwidth * links / (2 * self.chip.axes)


def parse_slice(topology: str) -> Slice:
    """The slice that a topology's name stands for.

    Args:
        topology: chip and chips along each axis, as "v5e:16x16".

    Raises:
        UserError: it is no such name, or no such slice can be had.
    """
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)*)", topology)
    if match is None or match[1] not in CHIPS:
        raise UserError(
            f"{topology!r} is no topology: chip ({', '.join(CHIPS)}), colon, chips along each axis.\n"
            f"For example: {_EXAMPLES}"
        )
    wanted = Slice(CHIPS[match[1]], tuple(map(int, match[2].split("x"))))
    if len(wanted.shape) != wanted.chip.axes:
        raise UserError(
            f"{topology}: slices of {wanted.chip.name} have {wanted.chip.axes} axes.\nFor example: {_EXAMPLES}"
        )
    if wanted.num_chips > wanted.chip.pod_chips:
        raise UserError(
            f"{topology} would be {wanted.num_chips:,} chips: "
            f"the largest slice of {wanted.chip.name} has {wanted.chip.pod_chips:,}."
        )
    return wanted
