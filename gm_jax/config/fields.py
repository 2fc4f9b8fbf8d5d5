"""Types of configuration fields. Their ranges are checked before anything is loaded or written.

Every float must be finite, also one without a range.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal


class Neutral:
    """Marks, in the `Annotated` type, a field that does not change what a run computes: it may differ on resuming."""


class Measuring:
    """Marks, in the `Annotated` type, a field that changes what an evaluation measures, but no parameter.

    Such a field has its help text in `tyro.conf.arg(help=...)`: the verb `evaluate` has a flag for it too.
    """


class Sampling:
    """Marks, as `Measuring` does, a field that changes how samples are drawn: the verb `sample` has its flag too."""


@dataclasses.dataclass(frozen=True)
class Added:
    """Marks, in the `Annotated` type, a field that is younger than saved runs.

    A run without the field opens and resumes with the value `before`. Every new field of a configuration has this mark;
    its default may be another value.

    Attributes:
        before: what the code computed with before the field existed.
    """

    before: Any


@dataclasses.dataclass(frozen=True)
class Bound:
    """A condition on the values of a field; part of the field's `Annotated` type.

    Attributes:
        text: the end of the sentence "FIELD must be ...".
        holds: whether a value satisfies it.
    """

    text: str
    holds: Callable[[Any], bool]


FINITE = Bound("finite", math.isfinite)  # of every float, in addition to its own bound
Count = Annotated[int, Bound("at least 1", lambda n: n >= 1)]
CountFromTwo = Annotated[int, Bound("at least 2", lambda n: n >= 2)]
CountOrZero = Annotated[int, Bound("at least 0", lambda n: n >= 0)]
Seed = Annotated[int, Bound("at least 0 and less than 2**32", lambda n: 0 <= n < 2**32)]
Rate = Annotated[float, Bound("more than 0", lambda x: x > 0.0)]
RateOrZero = Annotated[float, Bound("at least 0", lambda x: x >= 0.0)]
Factor = Annotated[float, Bound("more than 0 and at most 1", lambda x: 0.0 < x <= 1.0)]
Decay = Annotated[float, Bound("at least 0 and less than 1", lambda x: 0.0 <= x < 1.0)]
Share = Annotated[float, Bound("at least 0 and less than 1", lambda x: 0.0 <= x < 1.0)]
Temperature = Annotated[float, Bound("more than 0 and at most 100", lambda x: 0.0 < x <= 100.0)]
Guidance = Annotated[float, Bound("from -100 to 100", lambda x: -100.0 <= x <= 100.0)]
Widths = Annotated[tuple[Count, ...], Bound("at least one number", lambda widths: len(widths) > 0)]
Precision = Literal["float32", "bfloat16"]
Binarization = Literal["static", "dynamic", "threshold"]
