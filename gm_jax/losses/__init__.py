"""Losses: the index of the field.

A loss is a deterministic function of arrays (and of an array -> array callable, named `*_fn`, if the formula
differentiates in x). It holds no network, no parameters and no random key: noise and times are arguments. Arrays are
[B, ...]; event axes are summed, and the result is [B], in nats unless a docstring names another unit. The caller
reduces over the batch. A result is a scalar only if the quantity is defined on a batch or on parameters. `*_nll`,
`*_kl`, `*_loss` and `*_penalty` are minimised; `*_log_prob`, `*_bound` and `elbo` are maximised.

    from gm_jax.losses import combine, vae

    z = vae.reparameterize(mean, log_var, eps)
    terms = {"nll": vae.bernoulli_nll(x, decode(z)), "kl": vae.normal_kl_to_standard(mean, log_var)}
    loss = combine.weighted_sum(terms, kl=beta).mean()

Wrong shapes and dtypes raise AssertionError, under `jit` while it traces; no docstring repeats this.

Every function below can also be imported from here: `from gm_jax.losses import bernoulli_nll`. The examples in the
docstrings assume `import jax.numpy as jnp` and `from gm_jax import losses`, and print four digits.

The modules, in the order in which the field is taught:

likelihoods: -log p(x) from a network's outputs; decoders p(x | z) and conditionals p(x_i | x_<i) share them
    bernoulli_nll                binary data from logits                                 Kingma & Welling 2014
    categorical_nll              one of L levels from L logits                           van den Oord et al. 2016
    normal_nll                   real data, constant included                            Kingma & Welling 2014
    discretized_logistic_nll     ordered levels, bins of a logistic                      Kingma et al. 2016
    discretized_logistic_mixture_nll       ordered levels, bins of a mixture             Salimans et al. 2017

vae: variational autoencoders; it re-exports the decoders' likelihoods
    reparameterize               z = mean + std * eps                                    Kingma & Welling 2014
    normal_kl_to_standard        KL of a diagonal normal to the prior N(0, I)            Kingma & Welling 2014
    normal_kl                    KL of one diagonal normal to another                    Kingma & Welling 2014
    elbo                         evidence lower bound: -nll - kl                         Kingma & Welling 2014
    encoder_log_prob             log q(z | x) of one or K samples                        Kingma & Welling 2014
    prior_log_prob               log p(z) of one or K samples                            Kingma & Welling 2014
    log_importance_weights       log p(x | z) + log p(z) - log q(z | x)                  Burda et al. 2016
    importance_weighted_bound    log of the mean of K importance weights                 Burda et al. 2016
    resampled_importance_weighted_bound    the same, its gradient from a few of the K    Burda et al. 2016

vector_quantization: an encoder and its codebook
    codebook_loss                |sg(z) - e|^2, moves the codes                          van den Oord et al. 2017
    commitment_loss              |z - sg(e)|^2, moves the encoder's outputs              van den Oord et al. 2017

gan: adversarial games on logits, and their penalties
    minimax_value                V(G, D), which D maximises and G minimises              Goodfellow et al. 2014
    discriminator_loss           -V; real_target < 1 is one-sided label smoothing        Goodfellow 2014, Salimans 2016
    saturating_generator_loss    log(1 - D(G(z))), G's part of V                         Goodfellow et al. 2014
    non_saturating_generator_loss          -log D(G(z))                                  Goodfellow et al. 2014
    hinge_discriminator_loss     hinge on both sides of 0                                Lim & Ye 2017
    hinge_generator_loss         the hinge's generator: -score                           Lim & Ye 2017
    least_squares_discriminator_loss       squared distance from two targets             Mao et al. 2017
    least_squares_generator_loss           squared distance from the generator's target  Mao et al. 2017
    wasserstein_critic_loss      score of generated examples minus score of data         Arjovsky et al. 2017
    wasserstein_generator_loss   the critic's generator: -score                          Arjovsky et al. 2017
    gradient_penalty             (norm of the score's gradient in x - 1)^2               Gulrajani et al. 2017
    r1_penalty                   half the squared norm of the gradient at data           Mescheder et al. 2018
    feature_matching_loss        squared difference of mean features                     Salimans et al. 2016
    historical_averaging_penalty           squared distance from the mean over the past  Salimans et al. 2016
    update_historical_mean       adds one set of parameters to that mean                 Salimans et al. 2016

gan_optimum: the adversarial game at the best discriminator
    optimal_discriminator        D* from the two densities                               Goodfellow et al. 2014
    jensen_shannon_divergence    between two distributions over atoms                    Goodfellow et al. 2014
    optimal_value                V(G, D*) = -log 4 + 2 JSD                               Goodfellow et al. 2014

autoregressive: exact likelihoods by the chain rule, -sum_i log p(x_i | x_<i), from three of `likelihoods`

masked_diffusion: the bound of absorbing diffusion, an autoregressive model averaged over all orders
    masked_diffusion_loss        the bound's integrand at one time                       Shi et al. 2024
    any_order_loss               the same bound from sets of a drawn size                Hoogeboom et al. 2022

discrete_diffusion: the bound of D3PM, term by term
    categorical_kl               KL(q || p) of states, summed over dimensions            Austin et al. 2021
    discrete_variational_bound   -L_T - the sum of all terms, of all times or of some    Austin et al. 2021
    hybrid_loss                  one term, and a share of -log p(x_0 | x_t)              Austin et al. 2021

flow: exact likelihoods by the change of variables, log p_Z(f(x)) + log |det df/dx|
    change_of_variables_nll      -log p(x) from the prior's log-density and the log-det  Dinh et al. 2014
    multi_scale_log_prob         prior of a latent that was factored out in parts        Dinh et al. 2017
    standard_normal_log_prob     log p(z), normal prior                                  Dinh et al. 2014
    standard_logistic_log_prob   log p(z), logistic prior                                Dinh et al. 2014
    normal_log_prob              log p(z_i | later parts), learned prior                 Kingma & Dhariwal 2018

continuous_flow: the density of data that an ODE carries to noise
    continuous_flow_log_prob     log p_1 at the end + integral of the divergence         Chen et al. 2018
    standard_error_of_probes     error of its mean over several probes                   Grathwohl et al. 2019

diffusion: noise prediction, and the variational bound term by term
    noise_prediction_loss        |eps - eps_hat|^2, the simple loss                      Ho et al. 2020
    x0_prediction_loss           |x_0 - x0_hat|^2                                        Ho et al. 2020
    v_prediction_loss            |v - v_hat|^2                                           Salimans & Ho 2022
    bound_weight                 weight of the simple loss in the bound                  Ho et al. 2020
    prior_kl                     L_T: KL(q(x_T | x_0) || N(0, I))                        Ho et al. 2020
    denoising_kl                 L_(t-1): KL(q(x_s | x_t, x_0) || p(x_s | x_t))          Ho et al. 2020
    decoder_normal_nll           L_0 of points and latents                               Ho et al. 2020
    discretized_normal_nll       L_0 of integer levels, the end bins open                Ho et al. 2020
    variational_bound            -L_T - sum L_(t-1) - L_0, of all times or of some       Ho et al. 2020

score_matching: learning grad log p, from data or from noisy data; the bound in continuous time
    implicit_score_matching_loss           |S|^2 / 2 + tr of its Jacobian                Hyvarinen 2005
    sliced_score_matching_loss             the same along random directions              Song et al. 2019
    variance_reduced_sliced_score_matching_loss        the same, only the trace sliced   Song et al. 2019
    denoising_score_matching_loss          |S(x_t) + eps / s_t|^2 / 2, unweighted        Vincent 2011
    preconditioned_denoising_loss          |x_0 - x0_hat|^2 with EDM's weight            Karras et al. 2022
    continuous_prior_kl                    L_T of the bound in continuous time           Kingma et al. 2021
    continuous_bound                       -L_T - integral over log snr - L_0            Kingma et al. 2021

flow_matching: learning the velocity from noise to data
    conditional_flow_matching_loss         |u - u_hat|^2                                 Lipman et al. 2023

meanflow: learning the mean velocity between two times, for one step from noise to data
    mean_flow_loss               |U_hat - (u - (t - r) dU_hat / dt)|^2                   Geng et al. 2025, 2026
    adaptive_weight              1 / (loss + c)^p, a constant to the gradient            Geng et al. 2025

consistency: learning where a flow ends, for one step from noise to data
    consistency_loss             distance of two predictions of the end, over t - s      Song and Dhariwal 2024

energy: energy-based models, p(x) = exp(-E(x)) / Z; low energy is likely
    contrastive_loss             E of data minus E of samples: the NLL's gradient        Hinton 2002
    energy_penalty               mean squared energies of data and samples               Du & Mordatch 2019
    rbm_free_energy              an RBM's energy with the other side summed out          Smolensky 1986
    energy_from_logits           a classifier's energy: -logsumexp of its logits         Grathwohl et al. 2020
    noise_contrastive_loss       data or noise, from log p - log q; learns log Z         Gutmann & Hyvarinen 2012
    minimax_energy_value         NLL - KL(q || p) of a generator q                       Kim & Bengio 2016
    latent_generator_score       score of a generator's density, by its latents (VERA)   Grathwohl et al. 2021
    entropy_surrogate            its gradient is that of a generator's entropy           Grathwohl et al. 2021
    mutual_information_bound     dependence of samples and latents (MEG)                 Kumar et al. 2019

combine: several terms, one loss
    weighted_sum                 sum of named terms, each times its weight               beta-VAE: Higgins et al. 2017
    uncertainty_weighted_loss    an error divided by its expected size                   Kendall et al. 2018
"""

from gm_jax.losses import (
    autoregressive,
    combine,
    consistency,
    continuous_flow,
    diffusion,
    discrete_diffusion,
    energy,
    flow,
    flow_matching,
    gan,
    gan_optimum,
    likelihoods,
    masked_diffusion,
    meanflow,
    score_matching,
    vae,
    vector_quantization,
)
from gm_jax.losses.combine import uncertainty_weighted_loss, weighted_sum
from gm_jax.losses.consistency import consistency_loss
from gm_jax.losses.continuous_flow import continuous_flow_log_prob, standard_error_of_probes
from gm_jax.losses.diffusion import (
    bound_weight,
    decoder_normal_nll,
    denoising_kl,
    discretized_normal_nll,
    noise_prediction_loss,
    prior_kl,
    v_prediction_loss,
    variational_bound,
    x0_prediction_loss,
)
from gm_jax.losses.discrete_diffusion import categorical_kl, discrete_variational_bound, hybrid_loss
from gm_jax.losses.energy import (
    contrastive_loss,
    energy_from_logits,
    energy_penalty,
    entropy_surrogate,
    latent_generator_score,
    minimax_energy_value,
    mutual_information_bound,
    noise_contrastive_loss,
    rbm_free_energy,
)
from gm_jax.losses.flow import (
    change_of_variables_nll,
    multi_scale_log_prob,
    normal_log_prob,
    standard_logistic_log_prob,
    standard_normal_log_prob,
)
from gm_jax.losses.flow_matching import conditional_flow_matching_loss
from gm_jax.losses.gan import (
    discriminator_loss,
    feature_matching_loss,
    gradient_penalty,
    hinge_discriminator_loss,
    hinge_generator_loss,
    historical_averaging_penalty,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    minimax_value,
    non_saturating_generator_loss,
    r1_penalty,
    saturating_generator_loss,
    update_historical_mean,
    wasserstein_critic_loss,
    wasserstein_generator_loss,
)
from gm_jax.losses.gan_optimum import jensen_shannon_divergence, optimal_discriminator, optimal_value
from gm_jax.losses.likelihoods import (
    bernoulli_nll,
    categorical_nll,
    discretized_logistic_mixture_nll,
    discretized_logistic_nll,
    normal_nll,
)
from gm_jax.losses.masked_diffusion import any_order_loss, masked_diffusion_loss
from gm_jax.losses.meanflow import adaptive_weight, mean_flow_loss
from gm_jax.losses.score_matching import (
    continuous_bound,
    continuous_prior_kl,
    denoising_score_matching_loss,
    implicit_score_matching_loss,
    preconditioned_denoising_loss,
    sliced_score_matching_loss,
    variance_reduced_sliced_score_matching_loss,
)
from gm_jax.losses.vae import (
    elbo,
    encoder_log_prob,
    importance_weighted_bound,
    log_importance_weights,
    normal_kl,
    normal_kl_to_standard,
    prior_log_prob,
    reparameterize,
    resampled_importance_weighted_bound,
)
from gm_jax.losses.vector_quantization import codebook_loss, commitment_loss

__all__ = [
    "adaptive_weight",
    "any_order_loss",
    "autoregressive",
    "bernoulli_nll",
    "bound_weight",
    "categorical_kl",
    "categorical_nll",
    "change_of_variables_nll",
    "codebook_loss",
    "combine",
    "commitment_loss",
    "conditional_flow_matching_loss",
    "consistency",
    "consistency_loss",
    "continuous_bound",
    "continuous_flow",
    "continuous_flow_log_prob",
    "continuous_prior_kl",
    "contrastive_loss",
    "decoder_normal_nll",
    "denoising_kl",
    "denoising_score_matching_loss",
    "diffusion",
    "discrete_diffusion",
    "discrete_variational_bound",
    "discretized_logistic_mixture_nll",
    "discretized_logistic_nll",
    "discretized_normal_nll",
    "discriminator_loss",
    "elbo",
    "encoder_log_prob",
    "energy",
    "energy_from_logits",
    "energy_penalty",
    "entropy_surrogate",
    "feature_matching_loss",
    "flow",
    "flow_matching",
    "gan",
    "gan_optimum",
    "gradient_penalty",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "historical_averaging_penalty",
    "hybrid_loss",
    "implicit_score_matching_loss",
    "importance_weighted_bound",
    "jensen_shannon_divergence",
    "latent_generator_score",
    "least_squares_discriminator_loss",
    "least_squares_generator_loss",
    "likelihoods",
    "log_importance_weights",
    "masked_diffusion",
    "masked_diffusion_loss",
    "mean_flow_loss",
    "meanflow",
    "minimax_energy_value",
    "minimax_value",
    "multi_scale_log_prob",
    "mutual_information_bound",
    "noise_contrastive_loss",
    "noise_prediction_loss",
    "non_saturating_generator_loss",
    "normal_kl",
    "normal_kl_to_standard",
    "normal_log_prob",
    "normal_nll",
    "optimal_discriminator",
    "optimal_value",
    "preconditioned_denoising_loss",
    "prior_kl",
    "prior_log_prob",
    "r1_penalty",
    "rbm_free_energy",
    "reparameterize",
    "resampled_importance_weighted_bound",
    "saturating_generator_loss",
    "score_matching",
    "sliced_score_matching_loss",
    "standard_error_of_probes",
    "standard_logistic_log_prob",
    "standard_normal_log_prob",
    "uncertainty_weighted_loss",
    "update_historical_mean",
    "v_prediction_loss",
    "vae",
    "variance_reduced_sliced_score_matching_loss",
    "variational_bound",
    "vector_quantization",
    "wasserstein_critic_loss",
    "wasserstein_generator_loss",
    "weighted_sum",
    "x0_prediction_loss",
]
