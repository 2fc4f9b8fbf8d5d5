"""Generative adversarial networks: the losses, the best discriminator, and a game that goes round in circles."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy import stats

from gm_jax.losses import gan as losses
from gm_jax.losses import gan_optimum
from gm_jax.models import adversarial_objectives, gan
from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator
from gm_jax.plotting import images
from gm_jax.training.state import TrainState
from gm_jax.types import Array
from tools.lecture import training
from tools.lecture.page import Number, Page


def generator_losses() -> Page:
    """Two losses of the generator, and their gradients."""
    logits = jnp.linspace(-8.0, 8.0, 161)
    both = {
        "saturating: log(1 - D)": losses.saturating_generator_loss,
        "non-saturating: -log D": losses.non_saturating_generator_loss,
    }
    slopes = {name: jax.grad(lambda at, loss=loss: jnp.sum(loss(at))) for name, loss in both.items()}

    def slope(name: str, at: float) -> float:
        return float(slopes[next(key for key in slopes if key.startswith(name))](jnp.array([at]))[0])

    def draw(path: Path) -> None:
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, loss in both.items():
            left.plot(logits, loss(logits), label=name)
            right.plot(logits, slopes[name](logits), label=name)
        left.set(xlabel="logit of D(G(z))", ylabel="loss, nats")
        right.set(xlabel="logit of D(G(z))", ylabel="gradient in the logit", ylim=(-1.1, 0.1))
        right.axvspan(-8, -4, color="0.9", zorder=0)
        right.annotate("D is sure: early training", (-7.9, -0.6), fontsize="small")
        left.legend(fontsize="small")
        images.save_figure(path, figure)

    return Page(
        """
        saturating:       log(1 - D(G(z)))      gradient in the logit l of D:   -sigma(l)
        non-saturating:   -log D(G(z))          gradient in the logit l of D:   sigma(l) - 1
        """,
        (losses.saturating_generator_loss, losses.non_saturating_generator_loss, losses.minimax_value),
        """
        Both losses fall with D(G(z)), so that both want the same thing. They differ in where they push. Early in a
        training the discriminator is sure that a sample is generated: its logit is far below 0, in the grey region.
        There the saturating loss, which is the generator's part of the game's value, is flat, and its gradient
        vanishes. The non-saturating loss has its largest gradient exactly there. At D = 1/2 the two gradients are
        equal.
        """,
        (
            Number("gradient at logit -5, saturating", slope("saturating", -5.0), -0.0070, -0.0065, ".4f"),
            Number("gradient at logit -5, non-saturating", slope("non", -5.0), -0.9935, -0.9930, ".4f"),
            Number("gradient at D = 1/2, saturating", slope("saturating", 0.0), -0.5, -0.5, ".3f"),
            Number("gradient at D = 1/2, non-saturating", slope("non", 0.0), -0.5, -0.5, ".3f"),
        ),
        draw,
    )


_DATA = (2.0, 0.5)  # mean and standard deviation of the data of the one-dimensional GAN
_GRID = np.linspace(-4.0, 6.0, 1_001)


def optimal_discriminator() -> Page:
    """The discriminator and its optimum, while a GAN trains."""
    family, seen = _one_dimensional_gan()
    log_p_data = stats.norm.logpdf(_GRID, *_DATA)
    log_p_g = [_log_density(state) for state in seen]
    best = np.array([gan_optimum.optimal_value(_atoms(log_p_data), _atoms(log_p)) for log_p in log_p_g])
    logits = [_logits(family, state) for state in seen]
    value = np.array([_value(log_p_data, log_p, found) for log_p, found in zip(log_p_g, logits, strict=True)])

    def draw(path: Path) -> None:
        figure = Figure(figsize=(10, 5.2), layout="constrained")
        axes = figure.subplot_mosaic("abc;ddd")
        for place, index in zip("abc", (0, 4, len(seen) - 1), strict=True):
            panel, optimum = (
                axes[place],
                gan_optimum.optimal_discriminator(jnp.asarray(log_p_data), jnp.asarray(log_p_g[index])),
            )
            panel.fill_between(_GRID, np.exp(log_p_data), color="0.8", label="data")
            panel.plot(_GRID, np.exp(log_p_g[index]), color="tab:green", label="generator")
            panel.plot(_GRID, optimum, "k--", lw=1, label="D*")
            panel.plot(_GRID, jax.nn.sigmoid(logits[index]), color="tab:red", label="D")
            panel.set(title=f"step {100 * (index + 1):,}", ylim=(0, 1.3), xlabel="x")
        axes["a"].legend(fontsize="x-small", loc="upper left")
        steps = 100 * (1 + np.arange(len(seen)))
        axes["d"].plot(steps, best, "k--", label="V(G, D*) = -log 4 + 2 JSD")
        axes["d"].plot(steps, value, color="tab:red", label="V(G, D)")
        axes["d"].axhline(-np.log(4), color="0.6", lw=1)
        axes["d"].set(xlabel="step", ylabel="nats")
        axes["d"].legend()
        images.save_figure(path, figure, dpi=90)

    return Page(
        """
        V(G, D) = E log D(x) + E log(1 - D(G(z)))
        D*(x) = p_data(x) / (p_data(x) + p_G(x)),      V(G, D*) = -log 4 + 2 JSD(p_data, p_G)
        """,
        (gan_optimum.optimal_discriminator, gan_optimum.optimal_value, losses.minimax_value, gan.GAN),
        """
        The data are normal, and the generator is G(z) = w z + b, so that p_G is known and D* can be drawn (dashed).
        Above, three moments of the training: the learned D (red) follows D* where there are examples. The generator
        (green) moves to the data. Below, the value of the game: V(G, D) lies under V(G, D*), as it must, and both end
        at -log 4, the value if the two densities agree. Then D* is near 1/2 where the examples are. Farther out there
        are no examples, and D can be anything.
        """,
        (
            Number("V(G, D*) at step 100, nats", best[0], -1.0, 0.0, ".3f"),
            Number("V(G, D*) at the end, nats; -log 4 is -1.386", best[-1], -1.3863, -1.33, ".3f"),
            Number("smallest V(G, D*) - V(G, D), nats", float(np.min(best - value)), 0, 0.01, ".4f"),
            Number("median V(G, D*) - V(G, D), nats", float(np.median(best - value)), 0, 0.02, ".4f"),
        ),
        draw,
    )


_RATE, _STEPS = 0.1, 400


def bilinear_game() -> Page:
    """A game that goes round in circles."""
    paths = {
        "both at once": _play(alternating=False),
        "in turn": _play(),
        "in turn, R1 penalty": _play(r1=1.0),
        "in turn, historical averaging": _play(historical=0.5),
    }
    radius = {name: float(np.hypot(*path[-1])) for name, path in paths.items()}

    def draw(path: Path) -> None:
        figure = Figure(figsize=(11, 3.2), layout="constrained")
        for axes, (name, moves) in zip(figure.subplots(1, 4), paths.items(), strict=True):
            axes.plot(*moves.T, lw=0.8)
            axes.plot(*moves[0], "o", color="tab:green", ms=5)
            axes.plot(0, 0, "k+", ms=10)
            axes.set(title=name, xlabel="theta (generator)", aspect="equal")
            axes.title.set_fontsize("medium")
        figure.axes[0].set_ylabel("psi (critic)")
        images.save_figure(path, figure, dpi=90)

    return Page(
        """
        critic f(x) = psi x,   data at 0,   generator at theta:    critic minimises psi theta, generator -psi theta
        both at once, rate r:  |(theta, psi)|^2 grows by the factor 1 + r^2 at every step
        R1 = 1/2 |grad f|^2 = psi^2 / 2,      historical averaging = |theta - mean of the past theta|^2
        """,
        (
            losses.wasserstein_critic_loss,
            losses.wasserstein_generator_loss,
            losses.r1_penalty,
            losses.historical_averaging_penalty,
        ),
        """
        The smallest GAN has one number for each player. The only equilibrium is the cross at (0, 0). The gradient of
        each player is at a right angle to the way there, so that the players circle. If both move at once they spiral
        outwards, at exactly the rate of the formula. If they move in turn they stay on a ring and never arrive. The
        R1 penalty holds the critic's slope down and lets the game converge. Historical averaging slows the players
        down and pulls them towards the middle of their past, which is the middle of the circle: the equilibrium.
        """,
        (
            Number("distance after 400 steps, both at once", radius["both at once"], 7.30, 7.34, ".3f"),
            Number("distance by the formula, (1 + r^2)^(400 / 2)", (1 + _RATE**2) ** (_STEPS / 2), 7.30, 7.34, ".3f"),
            Number("distance, in turn", radius["in turn"], 0.9, 1.1, ".2f"),
            Number("distance, R1 penalty", radius["in turn, R1 penalty"], 0, 1e-3, ".1g"),
            Number("distance, historical averaging", radius["in turn, historical averaging"], 0, 0.3, ".2g"),
        ),
        draw,
    )


def _one_dimensional_gan() -> tuple[gan.GAN, list[TrainState]]:
    """Trains a GAN of one dimension: the family, and its states after every 100 steps."""
    family = gan.GAN(
        generator=MLPGenerator((), (1,)),  # w z + b, so that its density is known
        discriminator=MLPDiscriminator((64, 64)),
        losses=adversarial_objectives.saturating(),
        scaling=gan.points(),
        latent_dim=1,
        generator_every=10,
    )
    x = np.random.default_rng(0).normal(*_DATA, size=(20_000, 1)).astype(np.float32)
    optimizers = {"generator": optax.adam(2e-2, b1=0.5), "discriminator": optax.adam(3e-3, b1=0.5)}
    states = list(
        training.states(family.model, {"x": x}, steps=3_000, every=100, batch_size=256, optimizers=optimizers)
    )[1:]
    return family, states


def _log_density(state: TrainState) -> np.ndarray:
    """The generator's log-density on the grid."""
    layer = state.params["generator"]["Dense_0"]
    return stats.norm.logpdf(_GRID, float(layer["bias"][0]), abs(float(layer["kernel"][0, 0])))


def _logits(family: gan.GAN, state: TrainState) -> np.ndarray:
    grid = jnp.asarray(_GRID, jnp.float32)[:, None]
    return np.asarray(family.discriminator.apply({"params": state.params["discriminator"]}, grid, train=False)[0])


def _atoms(log_p: np.ndarray) -> Array:
    """Normalises a density on the grid."""
    return jax.nn.log_softmax(jnp.asarray(log_p, jnp.float32))


def _value(log_p_data: np.ndarray, log_p_g: np.ndarray, logits: np.ndarray) -> float:
    """V(G, D), an integral over the grid: of log D under the data, of log(1 - D) under the generator."""
    p_data, p_g = (np.exp(np.asarray(_atoms(log_p))) for log_p in (log_p_data, log_p_g))
    return float(p_data @ np.asarray(jax.nn.log_sigmoid(logits)) + p_g @ np.asarray(jax.nn.log_sigmoid(-logits)))


def _play(*, alternating: bool = True, r1: float = 0.0, historical: float = 0.0) -> np.ndarray:
    """Plays the bilinear game from (1, 1) / sqrt 2: the players' numbers [steps + 1, 2]."""

    def critic_loss(psi: Array, theta: Array, mean: Array) -> Array:
        score = _score(psi)
        loss = losses.wasserstein_critic_loss(score(jnp.zeros((1, 1))), score(theta[None, None]))[0]
        loss += r1 * losses.r1_penalty(score, jnp.zeros((1, 1)))[0]
        return loss + historical * losses.historical_averaging_penalty(psi, mean)

    def generator_loss(theta: Array, psi: Array, mean: Array) -> Array:
        loss = losses.wasserstein_generator_loss(_score(psi)(theta[None, None]))[0]
        return loss + historical * losses.historical_averaging_penalty(theta, mean)

    def move(carry: tuple[Array, Array, Array, Array], count: Array) -> tuple[tuple, Array]:
        theta, psi, theta_mean, psi_mean = carry
        new_psi = psi - _RATE * jax.grad(critic_loss)(psi, theta, psi_mean)
        seen = new_psi if alternating else psi
        new_theta = theta - _RATE * jax.grad(generator_loss)(theta, seen, theta_mean)
        means = (
            losses.update_historical_mean(theta_mean, new_theta, count),
            losses.update_historical_mean(psi_mean, new_psi, count),
        )
        return (new_theta, new_psi, *means), jnp.stack([new_theta, new_psi])

    start = jnp.float32(np.sqrt(0.5))
    path = jax.lax.scan(move, (start, start, start, start), 1 + jnp.arange(_STEPS))[1]
    return np.concatenate([[[float(start)] * 2], np.asarray(path)])


def _score(psi: Array) -> Callable[[Array], Array]:
    return lambda x: psi * x[:, 0]
