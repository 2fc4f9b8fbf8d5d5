"""Losses: the index of the field.

Each is a deterministic function of arrays (and, where a formula differentiates in x, of an array -> array callable
whose name ends in `_fn`): no network, no parameters, no random key. Noise and times are arguments. Arrays in are
[B, ...]; event axes are summed and [B] come out, in nats but where a docstring names another unit; the caller reduces
over the batch. A scalar comes out only of what is defined on a batch or on parameters. `*_nll`, `*_kl`, `*_loss` and
`*_penalty` are minimised; `*_log_prob`, `*_bound` and `elbo` are maximised.

    from gm_jax.losses import combine, vae

    z = vae.reparameterize(mean, log_var, eps)
    terms = {"nll": vae.bernoulli_nll(x, decode(z)), "kl": vae.normal_kl_to_standard(mean, log_var)}
    loss = combine.weighted_sum(terms, kl=beta).mean()

The modules, in the order in which the field is taught:

vae: variational autoencoders
    reparameterize               z = mean + std * eps                                    Kingma & Welling 2014
    normal_kl_to_standard        KL of a diagonal normal to the prior N(0, I)            Kingma & Welling 2014
    normal_kl                    KL of one diagonal normal to another                    Kingma & Welling 2014
    bernoulli_nll                -log p of binary data from logits                       Kingma & Welling 2014
    normal_nll                   -log p of real data, constant included                  Kingma & Welling 2014
    discretized_logistic_nll     -log p of integer levels, bins of a logistic            Kingma et al. 2016
    elbo                         evidence lower bound: -nll - kl                         Kingma & Welling 2014
    normal_log_prob              log q(z | x) of one or K samples                        Kingma & Welling 2014
    standard_normal_log_prob     log p(z) of one or K samples                            Kingma & Welling 2014
    log_importance_weights       log p(x | z) + log p(z) - log q(z | x)                  Burda et al. 2016
    importance_weighted_bound    log of the mean of K importance weights                 Burda et al. 2016
    resampled_importance_weighted_bound    the same, its gradient from a few of the K    Burda et al. 2016

gan: adversarial games, on logits; their penalties, and their value at the optimum
    minimax_value                V(G, D), which D maximises and G minimises              Goodfellow et al. 2014
    discriminator_loss           -V; real_target < 1 is one-sided label smoothing        Goodfellow 2014, Salimans 2016
    saturating_generator_loss    log(1 - D(G(z))), G's part of V                         Goodfellow et al. 2014
    non_saturating_generator_loss          -log D(G(z))                                  Goodfellow et al. 2014
    hinge_discriminator_loss     hinge on both sides of 0                                Lim & Ye 2017
    hinge_generator_loss         its generator's: -score                                 Lim & Ye 2017
    least_squares_discriminator_loss       squared distance from two targets             Mao et al. 2017
    least_squares_generator_loss           its generator's                               Mao et al. 2017
    wasserstein_critic_loss      score of generated examples minus that of data          Arjovsky et al. 2017
    wasserstein_generator_loss   its generator's: -score                                 Arjovsky et al. 2017
    gradient_penalty             (norm of the score's gradient in x - 1)^2               Gulrajani et al. 2017
    r1_penalty                   half the squared norm of the gradient at data           Mescheder et al. 2018
    optimal_discriminator        D* from the two densities                               Goodfellow et al. 2014
    jensen_shannon_divergence    of two distributions over atoms                         Goodfellow et al. 2014
    optimal_value                V(G, D*) = -log 4 + 2 JSD                               Goodfellow et al. 2014
    feature_matching_loss        squared difference of mean features                     Salimans et al. 2016
    historical_averaging_penalty           squared distance from the past's mean         Salimans et al. 2016
    update_historical_mean       that mean, with one more                                Salimans et al. 2016

autoregressive: exact likelihoods by the chain rule, -sum_i log p(x_i | x_<i)
    bernoulli_nll                binary data from logits                                 Larochelle & Murray 2011
    categorical_nll              one of L levels from L logits                           van den Oord et al. 2016
    discretized_logistic_mixture_nll       ordered levels, bins of a mixture             Salimans et al. 2017

flow: exact likelihoods by the change of variables, log p_Z(f(x)) + log |det df/dx|
    change_of_variables_nll      -log p(x) from the prior's log-density and the log-det  Dinh et al. 2014
    multi_scale_log_prob         prior of a latent that was factored out in parts        Dinh et al. 2017
    standard_normal_log_prob     log p(z), normal prior                                  Dinh et al. 2014
    standard_logistic_log_prob   log p(z), logistic prior                                Dinh et al. 2014
    normal_log_prob              log p(z_i | parts behind it), learned prior             Kingma & Dhariwal 2018

diffusion: noise prediction, and the variational bound term by term
    noise_prediction_loss        |eps - eps_hat|^2, the simple loss                      Ho et al. 2020
    x0_prediction_loss           |x_0 - x0_hat|^2                                        Ho et al. 2020
    v_prediction_loss            |v - v_hat|^2                                           Salimans & Ho 2022
    bound_weight                 weight of the simple loss in the bound                  Ho et al. 2020
    prior_kl                     L_T: KL(q(x_T | x_0) || N(0, I))                        Ho et al. 2020
    denoising_kl                 L_(t-1): KL(q(x_s | x_t, x_0) || p(x_s | x_t))          Ho et al. 2020
    normal_nll                   L_0 of points and latents                               Ho et al. 2020
    discretized_normal_nll       L_0 of integer levels, the end bins open                Ho et al. 2020
    variational_bound            -L_T - sum L_(t-1) - L_0, of all times or of some       Ho et al. 2020

combine: several terms, one loss
    weighted_sum                 sum of named terms, each times its weight               beta-VAE: Higgins et al. 2017
"""

from gm_jax.losses import autoregressive, combine, diffusion, flow, gan, vae

__all__ = ["autoregressive", "combine", "diffusion", "flow", "gan", "vae"]
