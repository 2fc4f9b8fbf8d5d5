"""Autoencoders: the latent plane, the log-variance, posterior collapse and tighter bounds."""

from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from gm_jax.data import pipeline
from gm_jax.losses import combine, likelihoods
from gm_jax.losses import vae as losses
from gm_jax.models import vae
from gm_jax.networks.mlp import MLP, MLPDecoder, MLPEncoder
from gm_jax.ops import distributions
from gm_jax.plotting import images
from gm_jax.plotting.vae import active_units
from gm_jax.training import state, step
from gm_jax.types import Array, Key, Metrics, Params
from tools.lecture import training, worlds
from tools.lecture.page import Number, Page

_DISC = float(np.sqrt(-2 * np.log(0.01)))  # radius that 99 % of N(0, I) in the plane stay within


def latent_plane() -> Page:
    """The latent plane of a plain autoencoder, beside a VAE's."""
    families = {"plain autoencoder": _digits_vae(2, _without_noise), "VAE": _digits_vae(2, vae.elbo_objective())}
    trained = {
        name: training.train(family.model, worlds.digits(), steps=1_500, batch_size=128).params
        for name, family in families.items()
    }
    x, label = worlds.digits()["x"], worlds.digits()["label"]
    codes = {
        name: np.asarray(family.encode(trained[name], jax.random.key(0), jnp.asarray(x))[0])
        for name, family in families.items()
    }
    inside = {name: float(np.mean(np.hypot(*code.T) < _DISC)) for name, code in codes.items()}
    nll = {name: _reconstruction(family, trained[name]) for name, family in families.items()}

    def draw(path: Path) -> None:
        figure = Figure(figsize=(9, 5.6), layout="constrained")
        panels = figure.subplots(2, 2, height_ratios=[4.5, 1])
        z = jax.random.normal(jax.random.key(1), (10, 2))
        for (name, code), (above, below) in zip(codes.items(), panels.T, strict=True):
            shown = above.scatter(*code.T, c=label, cmap="tab10", s=5, vmin=-0.5, vmax=9.5)
            above.add_patch(_circle(_DISC))
            above.set(title=f"{name}: codes of the digits", xlabel="z[0]", ylabel="z[1]", aspect="equal")
            decoded = np.asarray(families[name].decode(trained[name], z))
            framed = np.pad(decoded[..., 0], ((0, 0), (0, 0), (0, 1)), constant_values=16)
            below.imshow(np.concatenate(list(framed), axis=1), cmap="gray", vmin=0, vmax=16)
            below.set(title="decoded draws from N(0, I)", xticks=[], yticks=[])
        figure.colorbar(shown, ax=panels[0, 1], label="digit", ticks=range(10))
        images.save_figure(path, figure, dpi=90)

    return Page(
        """
        plain autoencoder:   minimise  -log p(x | z),                        z = mean(x)
        VAE:                 minimise  E_q[-log p(x | z)] + KL(q(z | x) || N(0, I)),   q = N(mean(x), var(x))
        """,
        (losses.normal_kl_to_standard, losses.reparameterize, vae.elbo_objective, vae.VAE),
        """
        Both models have the same networks and two latents. The colour is the digit. The circle holds 99 % of the
        prior N(0, I). Nothing asks the plain autoencoder to use the region of the prior. It spreads its codes far
        beyond, with gaps between them, so that draws from N(0, I) decode to the few digits whose codes happen to lie
        there. The KL pulls the codes of the VAE into the circle, and its noise closes the gaps.

        With two latents both reconstruct about equally well: the KL asks for an order of the codes, not for fewer.
        """,
        (
            Number("share of codes inside the circle, plain autoencoder", inside["plain autoencoder"], 0.0, 0.6, ".2f"),
            Number("share of codes inside the circle, VAE", inside["VAE"], 0.95, 1.0, ".2f"),
            Number("-log p(x given the mean code), plain autoencoder, nats", nll["plain autoencoder"], 8, 18, ".1f"),
            Number("-log p(x given the mean code), VAE, nats", nll["VAE"], 10, 20, ".1f"),
        ),
        draw,
    )


def log_variance() -> Page:
    """Why networks output the logarithm of a variance."""
    curves = {name: _train_variance(to_log_var) for name, to_log_var in _VARIANCES.items()}
    finite = {name: int(np.sum(np.isfinite(nll).all(axis=1))) for name, (nll, _) in curves.items()}
    largest = {name: float(np.nanmax(norms)) for name, (_, norms) in curves.items()}
    last = {name: float(np.median(nll[:, -1])) for name, (nll, _) in curves.items()}

    def draw(path: Path) -> None:
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        for axes, (name, (nll, _)) in zip(figure.subplots(1, 3, sharey=True), curves.items(), strict=True):
            axes.plot(nll.T, lw=0.6, color="tab:blue")
            axes.set(title=f"output = {name}\n{finite[name]} of 20 runs stay finite", xlabel="step", ylim=(-1, 6))
        figure.axes[0].set_ylabel("-log p, nats")
        images.save_figure(path, figure)

    return Page(
        """
        -log N(y; m, v) = 1/2 (log 2 pi + log v + (y - m)^2 / v)

        v = o            fails where the network's output o <= 0
        v = o^2          has a pole at o = 0, and its gradient has one too
        v = exp(o)       every output is a variance; the gradient 1/2 (1 - (y - m)^2 / v) is bounded from above
        """,
        (likelihoods.normal_nll, distributions.normal_log_prob, MLP),
        """
        A small network learns the mean and the variance of y = sin(3 x) + noise, whose standard deviation rises from
        0.02 to 1. The three panels differ only in what the output o stands for. Each has the same 20 initialisations.

        With v = o the loss is not a number as soon as one output is not positive. Most runs end at the first step,
        some later, and none reaches the end. With v = o^2 all runs stay finite, but networks stop at the pole instead
        of crossing it, and gradients can be of any size: the spikes. Most runs end far from the best fit. With v =
        exp(o) all runs find it. This is why every encoder and decoder of gm_jax outputs the logarithm of a variance.
        """,
        (
            Number("finite runs of 20, v = o", finite["v"], 0, 0, ".0f"),
            Number("finite runs of 20, v = exp(o)", finite["log v"], 20, 20, ".0f"),
            Number("largest gradient, v = o^2", largest["sqrt v"], 1e3, 1e12, ".2g"),
            Number("largest gradient, v = exp(o)", largest["log v"], 0, 1e3, ".2g"),
            Number("-log p after training, v = o^2, median, nats", last["sqrt v"], 0.2, 3, ".2f"),
            Number("-log p after training, v = exp(o), median, nats", last["log v"], -0.6, -0.2, ".2f"),
        ),
        draw,
    )


def posterior_collapse() -> Page:
    """Posterior collapse along beta."""
    betas = np.array([0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    params = _train_with_betas(betas)
    family, x = _digits_vae(8, vae.elbo_objective()), jnp.asarray(worlds.digits("test")["x"])

    def measure(params: Params) -> tuple[Array, Array, Array]:
        _, mean, log_var, nll_fn = family.posterior(params, jax.random.key(0), x)
        z = losses.reparameterize(mean, log_var, jax.random.normal(jax.random.key(1), mean.shape))
        kl = losses.normal_kl_to_standard(mean, log_var)
        return jnp.mean(nll_fn(z[None])), jnp.mean(kl), jnp.sum(active_units(mean))

    nll, kl, active = (np.asarray(found) for found in jax.jit(jax.vmap(measure))(params))

    def draw(path: Path) -> None:
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(betas, nll, marker="o", label="-log p(x | z)")
        left.plot(betas, kl, marker="o", label="KL")
        left.plot(betas, nll + kl, marker="o", color="0.5", ls="--", label="sum: -ELBO")
        left.set(xscale="log", xlabel="beta", ylabel="nats, test split")
        left.legend()
        right.plot(betas, active, marker="o", color="tab:red")
        right.set(xscale="log", xlabel="beta", ylabel="active latents of 8", ylim=(-0.3, 8.3))
        images.save_figure(path, figure)

    return Page(
        """
        loss = -log p(x | z) + beta KL(q(z | x) || N(0, I))
        latent j is active if the variance of its mean over the data, Var_x(mean_j(x)), is above 0.01
        """,
        (losses.normal_kl_to_standard, combine.weighted_sum, vae.elbo_objective, active_units),
        """
        Seven VAEs with 8 latents differ only in beta. A latent costs beta times its KL and pays by a better
        reconstruction. If the price is too high, the best encoder ignores x: q(z_j | x) is the prior, and the latent
        carries nothing. The latents switch off one after the other. At the largest beta all have collapsed: no latent
        is active, and the KL is 0.

        The sum of both terms is smallest near beta = 1, because only there it is what the training minimises.
        """,
        (
            Number("active latents, beta = 0.1", active[0], 7, 8, ".0f"),
            Number("active latents, beta = 16", active[-1], 0, 0, ".0f"),
            Number("KL, beta = 0.1, nats", kl[0], 12, 40, ".1f"),
            Number("KL, beta = 16, nats", kl[-1], 0, 0.2, ".2f"),
            Number("beta of the smallest sum", betas[np.argmin(nll + kl)], 0.5, 2, ".1f"),
        ),
        draw,
    )


def tighter_bounds() -> Page:
    """Bounds on log p(x) that tighten with K."""
    w, noise, shift = 1.5, 0.5, 0.6  # p(x | z) = N(w z, noise^2); q is off by `shift` and too wide
    x = jnp.asarray(np.random.default_rng(0).normal(size=2_000) * np.hypot(w, noise), jnp.float32)[:, None]
    exact = float(jnp.mean(-likelihoods.normal_nll(x, 0 * x, jnp.full_like(x, 2 * np.log(np.hypot(w, noise))))))
    variance = noise**2 / (w**2 + noise**2)
    mean, log_var = x * w / (w**2 + noise**2) + shift * np.sqrt(variance), jnp.full_like(x, np.log(2 * variance))
    counts = np.array([1, 2, 5, 10, 50, 200, 1_000])

    def bound(count: int) -> float:
        eps = jax.random.normal(jax.random.key(count), (count, *x.shape))
        z = losses.reparameterize(mean, log_var, eps)
        log_p_x = -jax.vmap(lambda z: likelihoods.normal_nll(x, w * z, jnp.full_like(x, 2 * np.log(noise))))(z)
        log_q = losses.encoder_log_prob(z, mean, log_var)
        log_w = losses.log_importance_weights(log_p_x, losses.prior_log_prob(z), log_q)
        return float(jnp.mean(losses.importance_weighted_bound(log_w)))

    gaps = exact - np.array([bound(int(count)) for count in counts])
    kl = 0.5 * (2 + shift**2 - 1 - np.log(2))  # KL(q || p(z | x)), in closed form

    def draw(path: Path) -> None:
        figure = Figure(figsize=(6.5, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot(counts, exact - gaps, marker="o", label="L_K")
        axes.axhline(exact, color="k", lw=1, label="log p(x)")
        axes.axhline(exact - kl, color="0.5", ls="--", label="log p(x) - KL(q || p(z | x))")
        axes.set(xscale="log", xlabel="K", ylabel="nats, mean over x")
        axes.legend(loc="lower right")
        images.save_figure(path, figure)

    return Page(
        """
        L_K(x) = E log 1/K sum_k w_k,    w_k = p(x | z_k) p(z_k) / q(z_k | x),    z_k ~ q(z | x)
        L_1 = log p(x) - KL(q(z | x) || p(z | x)),     L_K <= L_(K+1) <= log p(x)
        """,
        (losses.log_importance_weights, losses.importance_weighted_bound, losses.encoder_log_prob),
        """
        Here everything is known: z ~ N(0, 1), p(x | z) is normal around 1.5 z, so that log p(x) and the posterior p(z |
        x) have closed forms. The encoder q is wrong on purpose, shifted and too wide. With K = 1 the gap is, up to the
        error of the draws, the KL divergence from q to the posterior (dashed). With more samples the bound rises to log
        p(x), although q is as wrong as before.
        """,
        (
            Number("gap of K = 1, nats", gaps[0], kl - 0.05, kl + 0.05, ".3f"),
            Number("KL from q to the posterior in closed form, nats", kl, kl, kl, ".3f"),
            Number("gap of K = 10, nats", gaps[3], 0.02, 0.12, ".3f"),
            Number("gap of K = 1,000, nats", gaps[-1], -0.002, 0.005, ".4f"),
            Number("smallest rise from one K to the next, nats", float(np.min(-np.diff(gaps))), -0.005, 1, ".3f"),
        ),
        draw,
    )


def _digits_vae(latent_dim: int, objective: vae.ObjectiveFn) -> vae.VAE:
    return vae.VAE(
        encoder=MLPEncoder((128,), latent_dim),
        decoder=MLPDecoder((128,), (8, 8, 1)),
        likelihood=worlds.black_and_white(),
        latent_dim=latent_dim,
        objective=objective,
    )


def _without_noise(key: Key, mean: Array, log_var: Array, nll_fn: vae.NllFn) -> tuple[Array, Metrics]:
    """The objective of a plain autoencoder: the code is the mean, and costs nothing."""
    value = jnp.mean(nll_fn(mean[None]))
    return value, {"nll": value}


def _reconstruction(family: vae.VAE, params: Params) -> float:
    _, mean, _, nll_fn = family.posterior(params, jax.random.key(0), jnp.asarray(worlds.digits("test")["x"]))
    return float(jnp.mean(nll_fn(mean[None])))


def _train_with_betas(betas: np.ndarray) -> Params:
    """Trains one VAE for each beta, all at once; returns their parameters along a first axis."""
    optimizer, batch_size, steps = {"vae": optax.adam(2e-3)}, 128, 1_000
    batches = jax.tree.map(jnp.asarray, pipeline.train_batches({"x": worlds.digits()["x"]}, batch_size, 0, 0, steps))
    first = state.create(
        _digits_vae(8, vae.elbo_objective()).model, optimizer, jax.random.key(0), {"x": batches["x"][0]}
    )

    def run(beta: Array) -> Params:
        model = _digits_vae(8, vae.elbo_objective(beta=beta)).model  # pyright: ignore[reportArgumentType]
        return jax.lax.scan(step.make_train_step(model, optimizer, seed=0), first, batches)[0].params

    return jax.jit(jax.vmap(run))(jnp.asarray(betas, jnp.float32))


_VARIANCES = {"v": jnp.log, "sqrt v": lambda o: jnp.log(o**2), "log v": lambda o: o}


def _train_variance(to_log_var: Any) -> tuple[np.ndarray, np.ndarray]:
    """Fits mean and variance from 20 initialisations: the loss and the gradient's norm [20, steps]."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, size=(256, 1))
    y = np.sin(3 * x) + 0.02 * 50 ** (0.5 * (x + 1)) * rng.normal(size=x.shape)
    network, optimizer = MLP((32,), 2), optax.adam(1e-2)

    def loss(params: Params) -> Array:
        outputs = cast(Array, network.apply({"params": params}, jnp.asarray(x, jnp.float32)))
        mean, output = jnp.split(outputs, 2, axis=1)
        return jnp.mean(likelihoods.normal_nll(jnp.asarray(y, jnp.float32), mean, to_log_var(output)))

    def run(key: Key) -> tuple[Array, Array]:
        params = network.init(key, jnp.zeros((1, 1)))["params"]

        def take(carry: Any, _: None) -> tuple[Any, tuple[Array, Array]]:
            params, moments = carry
            value, gradient = jax.value_and_grad(loss)(params)
            updates, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(params, updates), moments), (value, optax.global_norm(gradient))

        return jax.lax.scan(take, (params, optimizer.init(params)), None, length=400)[1]

    nll, norms = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 20))
    return np.asarray(nll), np.asarray(norms)


def _circle(radius: float) -> Any:
    from matplotlib.patches import Circle

    return Circle((0, 0), radius, fill=False, color="k", lw=1)
