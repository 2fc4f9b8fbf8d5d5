"""Losses: the index of the field.

Each is a deterministic function of arrays (and, where a formula differentiates in x, of an array -> array callable
whose name ends in `_fn`): no network, no parameters, no random key. Noise and times are arguments. Arrays in are
[B, ...]; event axes are summed and [B] nats come out; the caller reduces over the batch. `*_nll`, `*_kl`, `*_loss`
and `*_penalty` are minimised; `*_log_prob`, `*_bound` and `elbo` are maximised.

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

autoregressive: exact likelihoods by the chain rule, -sum_i log p(x_i | x_<i)
    bernoulli_nll                binary data from logits                                 Larochelle & Murray 2011
    categorical_nll              one of L levels from L logits                           van den Oord et al. 2016
    discretized_logistic_mixture_nll       ordered levels, bins of a mixture             Salimans et al. 2017

combine: several terms, one loss
    weighted_sum                 sum of named terms, each times its weight               beta-VAE: Higgins et al. 2017
"""

from gm_jax.losses import autoregressive, combine, vae

__all__ = ["autoregressive", "combine", "vae"]
