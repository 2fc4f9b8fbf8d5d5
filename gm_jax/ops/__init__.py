"""Mathematics of arrays without parameters: what losses, models and evaluation are written in.

reductions
    sum_except_batch       sum over every axis but the first: [B, ...] -> [B]
    log_mean_exp           log of the mean of exponentials along an axis, without overflow
    masked_mean            mean over the entries that a mask keeps
    nats_to_bits_per_dim   nats / (D log 2)

distributions (elementwise; whoever calls sums over the event)
    normal_log_prob, standard_normal_log_prob      log N(x; mean, exp(log_var)), log N(x; 0, 1)
    bernoulli_log_prob                             log p(x in {0, 1}) from logits
    categorical_log_prob                           log p(x in 0..L-1) from logits [..., L]
    discretized_logistic_log_prob                  log mass of a logistic in the bin of an integer level
    discretized_logistic_mixture_log_prob          the same for a mixture of logistics
    normal_kl, normal_kl_to_standard               KL between normals, and to N(0, 1)

binarization (integer levels -> {0., 1.})
    static                 the data are binary as shipped
    dynamic                drawn anew with probability level / (levels - 1)
    threshold              above the middle of the scale

convolution
    conv                   of images, padded as one likes; its weight gradient is fast on CPU and in a scan
    causal_conv            of sequences, dilated
"""
