"""Generative adversarial networks: a generator and a discriminator, each with a loss of its own, whatever the networks.

    z ~ N(0, I),  x~ = G(z),    discriminator: min_D E L_D(l(h), l(x~)) + penalties,    generator: min_G E L_G(l(x~))

h = prepare(x) are the data as real numbers. The networks keep the contract of `networks.gan_mlp`. The pair (L_D, L_G)
is a `games.Game`. Of the five techniques of Salimans et al. (2016, arXiv:1606.03498) two are arguments here:

    feature_matching         L_G is the distance of the mean features of data and of what is generated
    historical_averaging     lambda |theta - mean of the past theta|^2 is added to both players' losses

and three belong to what is given: one-sided label smoothing to the game, minibatch discrimination and virtual batch
normalisation to the networks.

The discriminator moves first. Data and generated examples go through it in two calls, so that what depends on a batch
sees one kind at a time. Each keeps of `model_state` what its own move has changed: a batch that one player made to play
against the other leaves the other's running statistics alone. Logged are a player's whole loss, penalties included and
each of them by its name, weight included, and D_real and D_fake, the discriminator's mean answers: probabilities, or
scores where the game is of scores, so that of Wasserstein's the estimated distance is D_real - D_fake.

`model_state` holds what the networks carry besides parameters, by player, and under "history"
the means of historical averaging and how many parameters they are means of.

The model has no density. `log_prob` is that of kernels on its samples, an estimate, told in the unit of the
`DataSpace`; the kernels are injected, and their bandwidth, chosen by `calibrate` on data that trained nothing, lies in
`model_state["bandwidth"]`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import gan as losses
from gm_jax.models.adversarial_objectives import Game, PenaltyFn
from gm_jax.types import Array, Batch, Key, Likelihood, Model, ModelState, Objective, Params

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


class DataSpace(NamedTuple):
    """The way from what the data set ships to real numbers, and back.

    Attributes:
        prepare: x -> h, what the discriminator sees and the generator makes.
        to_data: h -> x, as the data set ships it.
        to_unit: h [B, ...] -> [B, D], in the unit in which densities are told.
    """

    prepare: Callable[[Array], Array]
    to_data: Callable[[Array], Array]
    to_unit: Callable[[Array], Array]


def points() -> DataSpace:
    """Real data, as they are."""
    return DataSpace(lambda x: x, lambda h: h, lambda h: h.reshape(h.shape[0], -1))


def images(*, levels: int) -> DataSpace:
    """Integer levels on [-1, 1]; densities are of images in [0, 1]^D, as in the literature."""

    def to_data(h: Array) -> Array:
        return jnp.clip(jnp.round(0.5 * (h + 1.0) * (levels - 1)), 0, levels - 1).astype(jnp.uint8)

    return DataSpace(
        prepare=lambda x: x.astype(jnp.float32) * (2.0 / (levels - 1)) - 1.0,
        to_data=to_data,
        to_unit=lambda h: 0.5 * (h.reshape(h.shape[0], -1) + 1.0),
    )


class Kernels(NamedTuple):
    """A density estimated from samples.

    Attributes:
        likelihood: (points [N, D], centres [M, D], bandwidth) -> Likelihood of [N] nats.
        choose_bandwidth: (points [N, D], centres [M, D]) -> a record, such as `kde.Bandwidth`, of the scalars
            `bandwidth` and `bracketed`, which is False where a better one may lie beyond those tried.
        num_centres: M, samples of the model; the same at every call.
    """

    likelihood: Callable[[Array, Array, Array], Likelihood]
    choose_bandwidth: Callable[[Array, Array], Any]
    num_centres: int


class GAN(NamedTuple):
    """The family's record.

    Attributes:
        model: init, the two objectives, sample, and `log_prob` where there are kernels.
        generate: (params, model_state, z [B, Z]) -> x~ [B, ...], as the data set ships it.
        calibrate: (params, model_state, x) -> (model_state with the bandwidth that suits x best, what to tell of it by
            name); x must be held out: of training, and of what is evaluated later. None where there are no kernels.
    """

    model: Model
    generate: Callable[[Params, ModelState, Array], Array]
    calibrate: Callable[[Params, ModelState, Array], tuple[ModelState, dict[str, Array]]] | None


def gan(
    generator: nn.Module,
    discriminator: nn.Module,
    game: Game,
    space: DataSpace,
    *,
    latent_dim: int,
    penalties: Mapping[str, PenaltyFn] = MappingProxyType({}),
    feature_matching: bool = False,
    historical_averaging: float = 0.0,
    generator_every: int = 1,
    kernels: Kernels | None = None,
    axis_name: str | None = None,
) -> GAN:
    """Two players with one step.

    Args:
        generator: (z [B, Z], *, train) -> x~ [B, ...].
        discriminator: ([B, ...], *, train) -> (logits [B], features [B, F]).
        game: what they play for.
        space: the way from the data to real numbers.
        latent_dim: Z.
        penalties: what is added to the discriminator's loss, by name. They see the discriminator as it is evaluated,
            each example's score its own; with batch normalisation that is not the discriminator that is trained.
        feature_matching: the generator matches mean features in place of its own loss in the game.
            With batch norm the discriminator normalises data and what is generated apart, and a channel's own mean and
            scale are hardly among what is matched; with spectral norm, or none, they are.
        historical_averaging: lambda; 0 for none.
        generator_every: steps of the discriminator for one of the generator.
        kernels: for `log_prob`; None for a model without.
        axis_name: the mapped axis over which feature matching takes its means as well; only inside such a map.
    """
    networks = {GENERATOR: generator, DISCRIMINATOR: discriminator}

    def play(player: str, params: Params, state: ModelState, x: Array) -> tuple[Any, ModelState]:
        """What a network returns in training, and the state after."""
        variables = {"params": params[player], **state[player]}
        outputs, carried = networks[player].apply(variables, x, train=True, mutable=list(state[player]))
        return outputs, {**state, player: dict(carried)}

    def generate(params: Params, state: ModelState, z: Array) -> Array:
        return generator.apply({"params": params[GENERATOR], **state[GENERATOR]}, z, train=False)

    def latents(key: Key, n: int) -> Array:
        return jax.random.normal(key, (n, latent_dim))

    def init(key: Key, batch: Batch) -> tuple[Params, ModelState]:
        z_key, *keys = jax.random.split(key, 3)
        # Whole batches: of what `init` is given a virtual batch norm makes its reference batch.
        h = space.prepare(batch["x"])
        given = {GENERATOR: latents(z_key, h.shape[0]), DISCRIMINATOR: h}
        params, state = {}, {}
        for player_key, (player, x) in zip(keys, given.items(), strict=True):
            state[player] = dict(networks[player].init(player_key, x, train=True))
            params[player] = state[player].pop("params")
        if historical_averaging:
            nothing = jnp.zeros((), jnp.int32)
            state["history"] = {p: {"mean": jax.tree.map(jnp.zeros_like, params[p]), "count": nothing} for p in params}
        if kernels is not None:
            state["bandwidth"] = jnp.ones(())
        return params, state

    def remember(player: str, params: Params, state: ModelState) -> tuple[Array, ModelState]:
        """The penalty of historical averaging, after the mean has taken in the parameters; and the state with it."""
        past = state["history"][player]
        mine = jax.lax.stop_gradient(params[player])
        mean = losses.update_historical_mean(past["mean"], mine, past["count"])
        history = {**state["history"], player: {"mean": mean, "count": past["count"] + 1}}
        penalty = historical_averaging * losses.historical_averaging_penalty(params[player], mean)
        return penalty, {**state, "history": history}

    def finish(player: str, loss: Array, metrics: dict, params: Params, state: ModelState):
        if historical_averaging:
            penalty, state = remember(player, params, state)
            loss, metrics = loss + penalty, {**metrics, "historical_averaging": penalty}
        return loss, (state, metrics)

    def discriminator_loss(params: Params, state: ModelState, key: Key, batch: Batch):
        z_key, penalty_key = jax.random.split(key)
        real = space.prepare(batch["x"])
        fake, _ = play(GENERATOR, params, state, latents(z_key, real.shape[0]))
        (real_logits, _), state = play(DISCRIMINATOR, params, state, real)
        (fake_logits, _), state = play(DISCRIMINATOR, params, state, fake)
        loss = jnp.mean(game.discriminator(real_logits, fake_logits))
        metrics = {"D_real": jnp.mean(game.answer(real_logits)), "D_fake": jnp.mean(game.answer(fake_logits))}

        def score(x: Array) -> Array:
            return discriminator.apply({"params": params[DISCRIMINATOR], **state[DISCRIMINATOR]}, x, train=False)[0]

        for index, (name, penalty) in enumerate(penalties.items()):
            metrics[name] = jnp.mean(penalty(jax.random.fold_in(penalty_key, index), score, real, fake))
            loss = loss + metrics[name]
        return finish(DISCRIMINATOR, loss, metrics, params, state)

    def generator_loss(params: Params, state: ModelState, key: Key, batch: Batch):
        fake, state = play(GENERATOR, params, state, latents(key, batch["x"].shape[0]))
        (fake_logits, fake_features), _ = play(DISCRIMINATOR, params, state, fake)
        metrics = {"D_fake": jnp.mean(game.answer(fake_logits))}
        if feature_matching:
            (_, real_features), _ = play(DISCRIMINATOR, params, state, space.prepare(batch["x"]))
            loss = losses.feature_matching_loss(real_features, fake_features, axis_name=axis_name)
        else:
            loss = jnp.mean(game.generator(fake_logits))
        return finish(GENERATOR, loss, metrics, params, state)

    def sample(
        params: Params, state: ModelState, key: Key, n: int, *, label: Array | None = None, temperature=None
    ) -> Array:
        refuse_options(label=label, temperature=temperature)
        return space.to_data(generate(params, state, latents(key, n)))

    def centres(params: Params, state: ModelState) -> Array:
        return space.to_unit(generate(params, state, latents(jax.random.key(0), kernels.num_centres)))

    def log_prob(params: Params, state: ModelState, key: Key, x: Array) -> Likelihood:
        return kernels.likelihood(space.to_unit(space.prepare(x)), centres(params, state), state["bandwidth"])

    def calibrate(params: Params, state: ModelState, x: Array) -> tuple[ModelState, dict[str, Array]]:
        chosen = kernels.choose_bandwidth(space.to_unit(space.prepare(x)), centres(params, state))
        told = {"bandwidth": chosen.bandwidth, "bandwidth_at_edge_of_grid": ~chosen.bracketed}
        return {**state, "bandwidth": chosen.bandwidth}, told

    objectives = (
        Objective(DISCRIMINATOR, discriminator_loss),
        Objective(GENERATOR, generator_loss, every=generator_every),
    )
    model = Model(init, objectives, sample, None if kernels is None else log_prob)
    return GAN(
        model,
        generate=lambda params, state, z: space.to_data(generate(params, state, z)),
        calibrate=None if kernels is None else calibrate,
    )
