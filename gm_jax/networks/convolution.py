"""Flax's convolution with the derivative of `ops.cpu.strided_conv`, for networks that are trained inside of loops.

The parameters, their names and the numbers are those of `nn.Conv`. A step that is one of several in a call, or one
player's turn, is the body of a loop or of a conditional.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from gm_jax.ops import cpu
from gm_jax.types import Array


def convolve(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: Any,
    feature_group_count: int = 1,
    precision: Any = None,
) -> Array:
    """Computes what `jax.lax.conv_general_dilated` does; images without dilation and groups go by `strided_conv`."""
    is_plain = all(step == 1 for step in (*lhs_dilation, *rhs_dilation, feature_group_count))
    if lhs.ndim != 4 or not is_plain:
        return jax.lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            precision=precision,
        )
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    (above, below), (left, right) = padding
    vertical, horizontal = window_strides
    sides = ((above, below), (left, right))
    return cpu.strided_conv(lhs, rhs, strides=(vertical, horizontal), padding=sides, precision=precision)


Conv = partial(nn.Conv, conv_general_dilated=convolve)
