"""TPU chips as Google documents them, and the slices that are made of them.

The numbers are the peaks in Google Cloud's documentation (each chip's `source`, read in November 2026), in units of 1.
Memory is in powers of two: the pages of v4 and v5p state GiB; those of v5e and v6e state GB, which their compiler
counts in GiB. All other numbers are in powers of ten. The links that a chip uses depend on its slice:

    an axis that wraps around is a ring            two links of each chip carry the two directions
    an axis that does not is a line                the ring is folded onto it: the bandwidth of one link
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
        name: the chip's name in a topology.
        peak_flops: FLOP/s of matrix products with bfloat16 inputs. On TPUs jax also multiplies float32 matrices this
            way, in one pass, unless another `precision` is requested.
        hbm_bytes: high-bandwidth memory, bytes. The compiler leaves a program slightly less, on v5p slightly more.
        hbm_bandwidth: bytes/s.
        ici_bandwidth: bytes/s that a chip sends to its neighbours over all its links. The documents add both
            directions, which gives twice this number.
        axes: axes of the network: 2 for a plane, 3 for a cube; a chip has two links per axis.
        pod_chips: chips of the largest slice.
        wraps: shape of a slice -> whether each axis wraps around.
        source: the page that states the numbers.
        options: arguments of `get_topology_desc` that make a chip one device, as on Cloud TPU.
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
    """Each axis wraps around if it is as long as the axis of the pod."""
    return tuple(length == 16 for length in shape)


def _wraps_if_cubes(shape: tuple[int, ...]) -> tuple[bool, ...]:
    """All axes wrap around or none: the optical links that close them join whole cubes of 4x4x4 chips."""
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
    """A grid of chips, which the name of a topology stands for.

    Attributes:
        chip: the kind of chip.
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
        """The number of chips."""
        return math.prod(self.shape)

    @property
    def ici_bandwidth(self) -> float:
        """The bytes/s that a chip sends in collectives over the whole slice; 0 for a single chip."""
        axes = zip(self.shape, self.chip.wraps(self.shape), strict=True)
        links = sum(0 if length == 1 else 2 if wraps else 1 for length, wraps in axes)
        return self.chip.ici_bandwidth * links / (2 * self.chip.axes)


def parse_slice(topology: str) -> Slice:
    """Parses the name of a topology.

    Args:
        topology: chip and chips along each axis, for example "v5e:16x16".

    Returns:
        The slice.

    Raises:
        UserError: the name is malformed, or there is no such slice.
    """
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)*)", topology)
    if match is None or match[1] not in CHIPS:
        raise UserError(
            f"{topology!r} is not a topology: give a chip ({', '.join(CHIPS)}), a colon, and chips along each axis.\n"
            f"For example: {_EXAMPLES}"
        )
    wanted = Slice(CHIPS[match[1]], tuple(map(int, match[2].split("x"))))
    if len(wanted.shape) != wanted.chip.axes:
        raise UserError(
            f"{topology}: slices of {wanted.chip.name} have {wanted.chip.axes} axes.\nFor example: {_EXAMPLES}"
        )
    if wanted.num_chips > wanted.chip.pod_chips:
        raise UserError(
            f"{topology} has {wanted.num_chips:,} chips: "
            f"the largest slice of {wanted.chip.name} has {wanted.chip.pod_chips:,}; choose a smaller one."
        )
    return wanted
