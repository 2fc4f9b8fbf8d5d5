"""VQ-VAE (van den Oord, Vinyals & Kavukcuoglu, NeurIPS 2017, arXiv:1711.00937): an autoencoder of discrete codes.

The encoder maps x to vectors z at P places, a quantiser gives each of them one of K codes, and the decoder maps the
codes' vectors e to p(x | c). Two players train in two stages of one run. In the first S steps the autoencoder trains,

    -log p(x | c(x)) + beta |z - sg(e)|^2,    gradients of e passed to z unchanged                          (1)

and the codes are a state of their own, see `quantizers`. Then both stay fixed, and an autoregressive model P(c) of the
codes trains on c(x). Together they are a model of data,

    p(x) = sum_c P(c) p(x | c) >= P(c(x)) p(x | c(x))                                                       (2)

because no term of the sum is negative. So `log_prob` is a lower bound of log p(x). With a uniform P(c), as in the
source's first stage, (2) is `uniform_prior_bound`.

A sample is c from P(c), whose network keeps what it has computed, and then x from p(x | c).

The codes follow the encoder's latest parameters, while an evaluation takes their moving average. So the rate of the
first stage should end near 0, where both agree.
"""

import dataclasses
import math
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.losses import combine, vector_quantization
from gm_jax.models.autoregressive import Autoregressive
from gm_jax.models.decoder_likelihoods import DecoderLikelihood
from gm_jax.models.quantizers import Quantizer
from gm_jax.ops import checks
from gm_jax.ops.levels import space_setting
from gm_jax.types import Array, Batch, Key, Likelihood, Metrics, Model, ModelState, Objective, Params, steps


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class VQVAE:
    """A VQ-VAE of any two networks that keep the contract.

    Attributes:
        encoder: [B, ...] floats -> z [B, P * D], place by place.
        decoder: vectors [B, P * D] -> outputs [B, ..., C * likelihood.outputs_per_dim].
        likelihood: p(x | c), as functions of the decoder's outputs.
        quantizer: K codes of vectors of D numbers.
        prior: P(c), a model of P integers 0 ... K - 1, for example of shape (H, W, 1); it may have labels.
        commitment: beta; 0 leaves the term out.
        vae_steps: S.
    """

    encoder: nn.Module
    decoder: nn.Module
    likelihood: DecoderLikelihood
    quantizer: Quantizer
    prior: Autoregressive
    commitment: float = 0.25
    vae_steps: int

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and sampling use."""
        objectives = (
            Objective("vae", self.vae_loss, steps(0, self.vae_steps)),
            Objective("autoregressive", self.prior_loss, steps(self.vae_steps)),
        )
        return Model(self.init, objectives, self.sample, self.log_prob, {"quantizer": self.quantizer.sync})

    @property
    def num_places(self) -> int:
        """P."""
        return math.prod(self.prior.shape)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises both players and the codes, and checks that the networks' outputs have the right shapes."""
        encoder_key, decoder_key, quantizer_key, prepare_key, prior_key = jax.random.split(key, 5)
        x = self.likelihood.prepare(prepare_key, batch["x"][:1])
        width = self.num_places * self.quantizer.dim
        z, encoder = self.encoder.init_with_output(encoder_key, self.likelihood.encoder_input(x))
        outputs, decoder = self.decoder.init_with_output(decoder_key, jnp.zeros((1, width)))
        checks.check_outputs("the encoder", z, (1, width))
        checks.check_outputs("the decoder", outputs, (*x.shape[:-1], x.shape[-1] * self.likelihood.outputs_per_dim))
        codes = jnp.zeros((len(batch["x"]), *self.prior.shape), jnp.int32)
        params = {"vae": {"encoder": encoder["params"], "decoder": decoder["params"]}}
        params |= self.prior.init(prior_key, {**batch, "x": codes})[0]
        return params, {"quantizer": self.quantizer.init(quantizer_key)}

    def vae_loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Evaluates (1), and moves the codes to the outputs of the encoder.

        Metrics: nll, -log p(x | c(x)); commitment, without beta; perplexity of the codes of the latest batches.
        """
        prepare_key, codes_key = jax.random.split(key)
        state = model_state["quantizer"]
        x, z = self._encode(params, prepare_key, batch["x"])
        codes, e = self.quantizer.quantize(state, self._places(z))
        terms = {"nll": self.likelihood.nll(x, self.decoder_outputs(params, e.reshape(z.shape)))}
        if self.commitment > 0.0:
            terms["commitment"] = vector_quantization.commitment_loss(z, e.reshape(z.shape))
        weights = dict.fromkeys(terms.keys() - {"nll"}, self.commitment)
        value = jnp.mean(combine.weighted_sum(terms, **weights))
        metrics = {name: jnp.mean(term) for name, term in terms.items()}
        # Of the state before this step, because a mapped step has not joined the parts of the new one yet.
        metrics["perplexity"] = self.quantizer.perplexity(state)
        places = self._places(jax.lax.stop_gradient(z))
        return value, ({"quantizer": self.quantizer.updated(state, codes_key, places, codes)}, metrics)

    def prior_loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Evaluates the loss of P(c) on the codes of the batch."""
        prepare_key, key = jax.random.split(key)
        codes = self.codes(params, model_state, prepare_key, batch["x"])
        value, (_, metrics) = self.prior.loss(params, {}, key, {**batch, "x": codes})
        return value, (model_state, metrics)

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the bound (2); with labels, P(c) is the mean of P(c | y) over all of them."""
        prepare_key, key = jax.random.split(key)
        codes, nll = self._codes_and_nll(params, model_state, prepare_key, x)
        prior = self.prior.log_prob(params, {}, key, codes)
        settings = (*prior.settings, *space_setting(self.likelihood.side, x.shape[1:]))
        return Likelihood(prior.log_prob - nll, "lower_bound", self.likelihood.measure, settings)

    def uniform_prior_bound(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the bound (2) with K^-P in place of P(c): what the codes alone cost."""
        prepare_key, _ = jax.random.split(key)
        _, nll = self._codes_and_nll(params, model_state, prepare_key, x)
        log_p_c = -self.num_places * math.log(self.quantizer.num_codes)
        settings = space_setting(self.likelihood.side, x.shape[1:])
        return Likelihood(log_p_c - nll, "lower_bound", self.likelihood.measure, settings)

    def sample(
        self,
        params: Params,
        model_state: ModelState,
        key: Key,
        n: int,
        *,
        label: Array | None = None,
        temperature: float | Array | None = None,
    ) -> Array:
        """Draws codes from P(c), then x from p(x | c): [n, ...] as the data set ships it; options are of P(c)."""
        codes_key, x_key = jax.random.split(key)
        codes = self.prior.sample(params, {}, codes_key, n, label=label, temperature=temperature)
        return self.likelihood.sample(x_key, self._outputs_of(params, model_state, codes))

    def sample_mean(self, params: Params, model_state: ModelState, key: Key, n: int) -> Array:
        """Means of the distributions p(x | c) that `sample` draws from with the same key: float32 [n, ...]."""
        codes_key, _ = jax.random.split(key)
        return self.decode(params, model_state, self.prior.sample(params, {}, codes_key, n))

    def codes(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        """Encodes x [B, ...] as the data set ships it: int32 of the shape of P(c), e.g. [B, H, W, 1].

        The key prepares x.
        """
        _, z = self._encode(params, key, x)
        codes, _ = self.quantizer.quantize(model_state["quantizer"], self._places(z))
        return codes.reshape(-1, *self.prior.shape)

    def decode(self, params: Params, model_state: ModelState, codes: Array) -> Array:
        """Computes the mean of p(x | c) for codes [B, H, W, 1] int32 in 0 ... K - 1: float32 [B, ...], in levels.

        Raises:
            UserError: the codes are not integers, or have another shape.
        """
        if not jnp.issubdtype(codes.dtype, jnp.integer) or codes.shape[1:] != self.prior.shape:
            shape = ", ".join(map(str, self.prior.shape))
            raise UserError(
                f"codes are integers [N, {shape}], not {codes.dtype} {list(codes.shape)}: give those of encode."
            )
        return self.likelihood.mean(self._outputs_of(params, model_state, codes))

    def decoder_outputs(self, params: Params, e: Array) -> Array:
        """Computes the decoder's outputs [B, ...] for vectors [B, P * D]."""
        return _at_least_float32(cast(Array, self.decoder.apply({"params": params["vae"]["decoder"]}, e)))

    def _outputs_of(self, params: Params, model_state: ModelState, codes: Array) -> Array:
        e = self.quantizer.vectors(model_state["quantizer"], codes.reshape(len(codes), -1))
        return self.decoder_outputs(params, e.reshape(len(codes), -1))

    def _codes_and_nll(self, params: Params, model_state: ModelState, key: Key, x: Array) -> tuple[Array, Array]:
        """Prepares x, and returns its codes and -log p(x | c(x)) [B]."""
        x, z = self._encode(params, key, x)
        codes, e = self.quantizer.quantize(model_state["quantizer"], self._places(z))
        nll = self.likelihood.nll(x, self.decoder_outputs(params, e.reshape(z.shape)))
        return codes.reshape(-1, *self.prior.shape), nll

    def _encode(self, params: Params, key: Key, x: Array) -> tuple[Array, Array]:
        """Returns x as the likelihood sees it, and z [B, P * D]."""
        x = self.likelihood.prepare(key, x)
        z = self.encoder.apply({"params": params["vae"]["encoder"]}, self.likelihood.encoder_input(x))
        return x, _at_least_float32(cast(Array, z))

    def _places(self, z: Array) -> Array:
        return z.reshape(-1, self.quantizer.dim)


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
