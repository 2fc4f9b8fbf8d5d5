"""Energy-based models: contrastive gradients, free energies, noise-contrastive estimation and the minimax value.

Notation: E(x) is the energy of x, in nats. Low energy is likely:

    density:       p(x) = exp(-E(x)) / Z,    Z = sum or integral of exp(-E)                          (1)
    gradient:      d/dtheta -log p(x) = dE(x)/dtheta - E_{x~ ~ p} dE(x~)/dtheta                      (2)
    surrogate:     L = mean_i E(x_i) - mean_j E(sg(x~_j))                                            (3)
    RBM:           E(v, h) = -a.v - b.h - v.W h
                   F(v) = -a.v - sum_j softplus(b_j + v.W_j) = -log sum_h exp(-E(v, h))              (4)
    log Z of an RBM = logsumexp_v -F(v) = logsumexp_h (b.h + sum_i softplus(a_i + W_i.h))            (5)
    regulariser:   mean_i E(x_i)^2 + mean_j E(x~_j)^2                                                (6)
    classifier:    E(x) = -logsumexp_y f(x)[y],    log p(y|x) = log softmax f(x)[y]                  (7)
    NCE:           l(u) = -E(u) + c - log q(u) - log nu
                   L = -log sigmoid(l(x)) - nu log sigmoid(-l(x~)),    x~ ~ q,    c -> -log Z        (8)
    minimax:       V = E_data[E] - E_{x~ ~ q}[E] + H(q) = NLL - KL(q || p) <= NLL                    (9)

    entropy:       q(x|z) = N(g(z), s^2 I),    d log q(x)/dx = E_{z ~ q(z|x)} (g(z) - x) / s^2       (10)
                   dH(q)/dphi = -E d log q(x)/dx . dx/dphi,    x = g_phi(z) + s eps                  (11)
    information:   2 JSD(p(x, z), p(x) p(z)) - log 4 = max_T E_joint[-softplus(-T)] - E_shuffled[softplus(T)]    (12)

x~ are samples of the model in (3) and (6), of the noise q in (8), and of the generator q in (9). The gradient of (3)
is (2); its value states nothing about log p. In (9) the generator maximises a lower bound of the NLL that the energy
minimises. This bounds the wrong side for maximum likelihood, and is why such games are unstable: the energy can lower V
where the generator is poor, without the NLL falling.
"""

import chex
import jax
import jax.numpy as jnp

from gm_jax.types import Array


def contrastive_loss(data_energy: Array, model_energy: Array) -> Array:
    """Difference of mean energies, eq. (3), whose gradient in the parameters is that of the NLL, eq. (2).

    Args:
        data_energy: E(x) [B], nats.
        model_energy: E(x~) [N] of samples of the model, nats; the samples must carry no gradient.
    Returns:
        Scalar, nats; its gradient is minimised, but its value may rise while the model improves.
    Source: Hinton, "Training Products of Experts by Minimizing Contrastive Divergence", Neural Computation 14, 2002.
    Example:
        >>> losses.contrastive_loss(jnp.array([1.0, 3.0]), jnp.array([5.0]))
        Array(-3., dtype=float32)
    """
    _assert_energies(data_energy, model_energy)
    return jnp.mean(data_energy) - jnp.mean(model_energy)


def energy_penalty(data_energy: Array, model_energy: Array) -> Array:
    """Sum of the mean squared energies of data and samples, eq. (6), which keeps energies near 0.

    Args:
        data_energy: E(x) [B], nats.
        model_energy: E(x~) [N], nats.
    Returns:
        Scalar, nats^2; smaller is better.
    Source: Du & Mordatch, "Implicit Generation and Modeling with Energy-Based Models", NeurIPS 2019, arXiv:1903.08689.
    Example:
        >>> losses.energy_penalty(jnp.array([1.0, 3.0]), jnp.array([2.0]))
        Array(9., dtype=float32)
    """
    _assert_energies(data_energy, model_energy)
    return jnp.mean(jnp.square(data_energy)) + jnp.mean(jnp.square(model_energy))


def rbm_free_energy(bias_term: Array, other_logits: Array) -> Array:
    """Free energy of one side of a restricted Boltzmann machine, eq. (4): the units of the other side are summed out.

    Args:
        bias_term: a.v [B] for the visible side, b.h [B] for the hidden side.
        other_logits: the log-odds of each unit of the other side: b + v W [B, H], or a + W h [B, V].
    Returns:
        [B] F, nats; -F(v) = log p(v) + log Z.
    Source: Smolensky 1986; Hinton, "A Practical Guide to Training Restricted Boltzmann Machines", 2010, eq. 25.
    Example:
        >>> losses.rbm_free_energy(jnp.array([0.5]), jnp.array([[0.0]]))
        Array([-1.1931], dtype=float32)
    """
    chex.assert_rank([bias_term, other_logits], [1, 2])
    chex.assert_type([bias_term, other_logits], float)
    return -bias_term - jnp.sum(jax.nn.softplus(other_logits), axis=1)


def energy_from_logits(logits: Array) -> Array:
    """Energy of a classifier's input, eq. (7): minus the log of the sum over classes.

    Args:
        logits: f(x) [B, C]; a constant added to all C moves the energy, but not the class probabilities.
    Returns:
        [B] energies, nats up to log Z.
    Source: Grathwohl et al., "Your Classifier is Secretly an Energy Based Model", ICLR 2020, arXiv:1912.03263, eq. 7.
    Example:
        >>> losses.energy_from_logits(jnp.zeros((1, 10)))
        Array([-2.3026], dtype=float32)
    """
    chex.assert_rank(logits, 2)
    chex.assert_type(logits, float)
    return -jax.nn.logsumexp(logits, axis=1)


def noise_contrastive_loss(data_log_ratio: Array, noise_log_ratio: Array, *, noise_ratio: float = 1.0) -> Array:
    """Logistic loss that tells data from noise, eq. (8); at its minimum the log-ratio is log p - log q.

    Args:
        data_log_ratio: -E(x) + c - log q(x) [B] of data, nats; c is learned, and tends to -log Z.
        noise_log_ratio: the same [N] of samples of q.
        noise_ratio: nu, noise examples for each example of the data.
    Returns:
        Scalar, nats; smaller is better.
    Source: Gutmann & Hyvarinen, "Noise-contrastive estimation", JMLR 13, 2012, eq. 8.
    Example:
        >>> losses.noise_contrastive_loss(jnp.zeros(3), jnp.zeros(2))
        Array(1.3863, dtype=float32)
    """
    _assert_energies(data_log_ratio, noise_log_ratio)
    log_nu = jnp.log(jnp.asarray(noise_ratio, data_log_ratio.dtype))
    of_data = -jnp.mean(jax.nn.log_sigmoid(data_log_ratio - log_nu))
    of_noise = -jnp.mean(jax.nn.log_sigmoid(log_nu - noise_log_ratio))
    return of_data + noise_ratio * of_noise


def minimax_energy_value(data_energy: Array, generated_energy: Array, entropy: Array) -> Array:
    """Value of the minimax game, eq. (9): the energy minimises it and the generator maximises it.

    Args:
        data_energy: E(x) [B], nats.
        generated_energy: E(x~) [N] of the generator's samples, nats.
        entropy: H(q) scalar, nats, or a bound or estimate of it.
    Returns:
        Scalar, nats; at most the NLL, and equal to it at q = p.
    Source: Kim & Bengio, "Deep Directed Generative Models with Energy-Based Probability Estimation", 2016,
        arXiv:1606.03439; Grathwohl et al., "No MCMC for me", ICLR 2021, arXiv:2010.04230, eq. 4.
    Example:
        >>> losses.minimax_energy_value(jnp.array([1.0]), jnp.array([3.0]), jnp.array(0.5))
        Array(-1.5, dtype=float32)
    """
    _assert_energies(data_energy, generated_energy)
    chex.assert_rank(entropy, 0)
    return jnp.mean(data_energy) - jnp.mean(generated_energy) + entropy


def latent_generator_score(x: Array, means: Array, log_weights: Array, *, std: float) -> Array:
    """Estimates the score of a generator's density at its own samples, eq. (10), by weighted latents (VERA).

    Args:
        x: [B, ...] samples g(z) + s eps.
        means: g(z_k) [K, B, ...] of K latents for each x, drawn from a proposal.
        log_weights: log p(z_k) + log q(x | z_k) - log proposal(z_k) [K, B], up to a constant for each x; zeros if the
            latents are draws of q(z | x).
        std: s.
    Returns:
        [B, ...] d log q(x) / dx; its bias vanishes as K grows.
    Source: Grathwohl et al., "No MCMC for me", ICLR 2021, arXiv:2010.04230 (VERA).
    Example:
        >>> losses.latent_generator_score(jnp.array([[1.0]]), jnp.zeros((2, 1, 1)), jnp.zeros((2, 1)), std=2.0)
        Array([[-0.25]], dtype=float32)
    """
    chex.assert_rank(log_weights, 2)
    chex.assert_shape(means, (*log_weights.shape, *x.shape[1:]))
    weights = jax.nn.softmax(log_weights, axis=0).reshape(*log_weights.shape, *[1] * (x.ndim - 1))
    return (jnp.sum(weights * means, axis=0) - x) / std**2


def entropy_surrogate(x: Array, score: Array) -> Array:
    """Scalar whose gradient in the generator's parameters is that of its entropy H(q), eq. (11).

    Args:
        x: [B, ...] samples, differentiable functions of the parameters at fixed noise.
        score: [B, ...] d log q(x) / dx; it gets no gradient.
    Returns:
        Scalar; its gradient is maximised, and its value says nothing.
    Source: Grathwohl et al., "No MCMC for me", ICLR 2021, arXiv:2010.04230 (VERA).
    Example:
        >>> losses.entropy_surrogate(jnp.array([[1.0, 2.0]]), jnp.array([[-1.0, -0.5]]))
        Array(2., dtype=float32)
    """
    chex.assert_equal_shape([x, score])
    return -jnp.mean(jnp.sum((jax.lax.stop_gradient(score) * x).reshape(x.shape[0], -1), axis=1))


def mutual_information_bound(joint_scores: Array, shuffled_scores: Array) -> Array:
    """Lower bound on the dependence of x and z by a discriminator T, eq. (12) without its constant (MEG).

    If x = g(z) without noise, H(q) is I(x; z) up to a constant, so that a generator which raises this raises its
    entropy.

    Args:
        joint_scores: T(g(z), z) [B].
        shuffled_scores: T(g(z), z') [N], with z' independent of z.
    Returns:
        Scalar; larger is better. At most 2 JSD - log 4 of the joint density and the product of its margins, at
        T = log p(x, z) / (p(x) p(z)).
    Source: Kumar et al., "Maximum Entropy Generators for Energy-Based Models", 2019, arXiv:1901.08508 (MEG).
    Example:
        >>> losses.mutual_information_bound(jnp.zeros(2), jnp.zeros(3))
        Array(-1.3863, dtype=float32)
    """
    _assert_energies(joint_scores, shuffled_scores)
    return -jnp.mean(jax.nn.softplus(-joint_scores)) - jnp.mean(jax.nn.softplus(shuffled_scores))


def _assert_energies(*energies: Array) -> None:
    chex.assert_rank(energies, 1)
    chex.assert_type(energies, float)
