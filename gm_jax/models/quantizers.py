"""The quantisers of a VQ-VAE: which code a vector gets, which vector a code stands for, and what of this is state.

`EMACodebook` (van den Oord et al., NeurIPS 2017, arXiv:1711.00937, appendix A.1) keeps, for each of K codes, moving
averages of its frequency f_k and of the sum m_k of the vectors that were given this code,

    f_k <- g f_k + (1 - g) n_k,    m_k <- g m_k + (1 - g) s_k,    e_k = m_k / f_k                           (1)

with g the decay, and n_k and s_k this step's frequency and sum, both divided by the number of vectors
(`ops.quantization.code_means`). Since they are means over the batch, their mean over devices is that of the global
batch: the averages are `Mean` state. The source has counts and sums instead, and the same e_k.

A code that is hardly used, f_k < r / K, is restarted (Dhariwal et al., "Jukebox", 2020, arXiv:2005.00341, section 3.1):
it is moved to an output of the encoder in this batch, drawn by the step's key, with the frequency 1 / K. Exactly one
device does this for each code, so `Rows` tell each device which codes are its own. At first all frequencies are 0, so
that the first step moves every code to an output of the encoder. The perplexity is of averages of n_k that restarts
leave alone.

`FSQ` (Mentzer et al., ICLR 2024, arXiv:2309.15505) rounds each number and has no codebook. It keeps f_k of (1) alone,
for the perplexity.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Protocol

import jax
import jax.numpy as jnp

from gm_jax.ops import quantization
from gm_jax.types import Array, Key, Mean, ModelState, Rows, Sync

_TINY = 1e-30  # a code that was never used has the vector 0


class Quantizer(Protocol):
    """What a VQ-VAE needs of a quantiser."""

    @property
    def num_codes(self) -> int:
        """K."""
        ...

    @property
    def dim(self) -> int:
        """D, the numbers of a vector."""
        ...

    @property
    def sync(self) -> Mapping[str, Sync]:
        """How devices keep the parts of the state."""
        ...

    def init(self, key: Key) -> ModelState:
        """Returns the state before the first step."""
        ...

    def quantize(self, state: ModelState, z: Array) -> tuple[Array, Array]:
        """Maps z [N, D] to codes [N] int32 and their vectors [N, D], which pass gradients to z."""
        ...

    def vectors(self, state: ModelState, codes: Array) -> Array:
        """Maps codes [...] to vectors [..., D]."""
        ...

    def updated(self, state: ModelState, key: Key, z: Array, codes: Array) -> ModelState:
        """Returns the state after a step that gave z [N, D] these codes [N]."""
        ...

    def perplexity(self, state: ModelState) -> Array:
        """Computes the perplexity of the codes of the latest batches, between 1 and K."""
        ...


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class EMACodebook:
    """K vectors that are moving averages of the encoder's outputs, eq. (1).

    Attributes:
        num_codes: K; a multiple of the devices of a mapped step, if codes are restarted.
        dim: D.
        decay: g.
        restart_below: r, a share of the frequency 1 / K; 0 never restarts a code, and draws the first ones from
            N(0, I).
    """

    num_codes: int
    dim: int
    decay: float = 0.99
    restart_below: float = 0.1

    @property
    def sync(self) -> Mapping[str, Sync]:
        """How devices keep the parts of the state."""
        return {"usage": Mean(), "restarts": Rows(per_step=self.num_codes, fixed=True)}

    def init(self, key: Key) -> ModelState:
        """Returns the state before the first step."""
        if self.restart_below > 0.0:
            usage = {"frequency": jnp.zeros(self.num_codes), "sums": jnp.zeros((self.num_codes, self.dim))}
            usage["seen"] = jnp.zeros(self.num_codes)
            return {"usage": usage, "restarts": {"rows": jnp.arange(self.num_codes), "count": jnp.int32(0)}}
        frequency = jnp.full(self.num_codes, 1.0 / self.num_codes)
        sums = jax.random.normal(key, (self.num_codes, self.dim)) / self.num_codes
        return {"usage": {"frequency": frequency, "sums": sums, "seen": jnp.zeros(self.num_codes)}}

    def codebook(self, state: ModelState) -> Array:
        """Computes e [K, D]."""
        usage = state["usage"]
        return usage["sums"] / jnp.maximum(usage["frequency"], _TINY)[:, None]

    def quantize(self, state: ModelState, z: Array) -> tuple[Array, Array]:
        """Maps z [N, D] to codes [N] int32 and their vectors [N, D], which pass gradients to z."""
        codebook = self.codebook(state)
        codes = quantization.nearest_code(jax.lax.stop_gradient(z), codebook)
        return codes, quantization.straight_through(z, codebook[codes])

    def vectors(self, state: ModelState, codes: Array) -> Array:
        """Maps codes [...] to vectors [..., D]."""
        return self.codebook(state)[codes]

    def updated(self, state: ModelState, key: Key, z: Array, codes: Array) -> ModelState:
        """Returns the state after a step that gave z [N, D] these codes [N]; the key draws where codes restart."""
        frequency, sums = quantization.code_means(codes, z, num_codes=self.num_codes)
        usage = {
            "frequency": _moved(state["usage"]["frequency"], frequency, self.decay),
            "sums": _moved(state["usage"]["sums"], sums, self.decay),
            "seen": _moved(state["usage"]["seen"], frequency, self.decay),
        }
        if self.restart_below == 0.0:
            return {"usage": usage}
        own = state["restarts"]["rows"]
        drawn = z[jax.random.randint(key, own.shape, 0, len(z))]
        # The mean over devices of this and of the others' zeros is the drawn vector.
        devices = self.num_codes // len(own)
        restarted = jnp.zeros_like(sums).at[own].set(drawn * (devices / self.num_codes))
        # The frequencies before this step are those that all devices know.
        is_unused = state["usage"]["frequency"] < self.restart_below / self.num_codes
        usage |= {
            "frequency": jnp.where(is_unused, 1.0 / self.num_codes, usage["frequency"]),
            "sums": jnp.where(is_unused[:, None], restarted, usage["sums"]),
        }
        return {**state, "usage": usage}

    def perplexity(self, state: ModelState) -> Array:
        """Computes the perplexity of the codes of the latest batches, between 1 and K."""
        return quantization.perplexity(state["usage"]["seen"])


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FSQ:
    """Finite scalar quantisation: `ops.quantization`, eqs. (4) to (6).

    Attributes:
        levels: L of each number; D numbers.
        decay: of the moving average of the frequencies.
    """

    levels: tuple[int, ...]
    decay: float = 0.99

    @property
    def num_codes(self) -> int:
        """K, the product of the levels."""
        return math.prod(self.levels)

    @property
    def dim(self) -> int:
        """D, the numbers of a vector."""
        return len(self.levels)

    @property
    def sync(self) -> Mapping[str, Sync]:
        """How devices keep the parts of the state."""
        return {"usage": Mean()}

    def init(self, key: Key) -> ModelState:
        """Returns the state before the first step."""
        return {"usage": {"frequency": jnp.zeros(self.num_codes)}}

    def quantize(self, state: ModelState, z: Array) -> tuple[Array, Array]:
        """Maps z [N, D] to codes [N] int32 and their vectors [N, D], which pass gradients to z."""
        values = quantization.scalar_values(z, self.levels)
        return quantization.scalar_code(values, self.levels), values

    def vectors(self, state: ModelState, codes: Array) -> Array:
        """Maps codes [...] to vectors [..., D]."""
        return quantization.scalar_vector(codes, self.levels)

    def updated(self, state: ModelState, key: Key, z: Array, codes: Array) -> ModelState:
        """Returns the state after a step that gave z [N, D] these codes [N]."""
        frequency, _ = quantization.code_means(codes, z, num_codes=self.num_codes)
        return {"usage": {"frequency": _moved(state["usage"]["frequency"], frequency, self.decay)}}

    def perplexity(self, state: ModelState) -> Array:
        """Computes the perplexity of the codes of the latest batches, between 1 and K."""
        return quantization.perplexity(state["usage"]["frequency"])


def _moved(average: Array, value: Array, decay: float) -> Array:
    return decay * average + (1.0 - decay) * value
