"""Autoregressive models: the exact negative log-likelihood, by the chain rule, from the parameters of the conditionals.

Notation: x data, D positions, x_<i the positions before i in the model's ordering; a network that cannot look ahead
computes the parameters of all D conditionals in one pass.

    chain rule:   -log p(x) = -sum_i log p(x_i | x_<i)                                                    (1)

A conditional is one of `losses.likelihoods`, whose sum over the event is the sum (1) over all positions, in nats. A
mean over pixels is in nats per dimension, which is a different number.

An ensemble of K orderings is a mixture: its log-likelihood is `ops.reductions.log_mean_exp` of the K values of
log p(x). Their mean is smaller (Jensen) and is not the likelihood of any model.
"""

from gm_jax.losses.likelihoods import bernoulli_nll, categorical_nll, discretized_logistic_mixture_nll

__all__ = ["bernoulli_nll", "categorical_nll", "discretized_logistic_mixture_nll"]
