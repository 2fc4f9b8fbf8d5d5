"""Mathematics of arrays without parameters: the functions that losses, models and evaluation are written in.

Wrong shapes and dtypes raise AssertionError, under `jit` while it traces; no docstring repeats this.

reductions
    sum_except_batch       sum over every axis but the first: [B, ...] -> [B]
    log_mean_exp           log of the mean of exponentials along an axis, without overflow
    nats_to_bits_per_dim   nats / (D log 2)

distributions (elementwise; the caller sums over the event)
    normal_log_prob, standard_normal_log_prob      log N(x; mean, exp(log_var)), log N(x; 0, 1)
    standard_logistic_log_prob                     log-density of the logistic of location 0 and scale 1
    bernoulli_log_prob                             log p(x in {0, 1}) from logits
    categorical_log_prob                           log p(x in 0..L-1) from logits [..., L]
    discretized_logistic_log_prob                  log mass of a logistic in the bin of an integer level
    discretized_normal_log_prob                    the same for a normal
    discretized_logistic_mixture_log_prob          the same for a mixture of logistics
    normal_kl, normal_kl_to_standard               KL between normals, and to N(0, 1)

color_mixture (all colours of a pixel, by one mixture of logistics)
    split_parameters, parameters_per_pixel         a network's outputs -> a ColorMixture
    mixture_of_each_color                          the mixture of each colour given the earlier ones

binarization (integer levels -> {0., 1.})
    static                 the data are binary as shipped
    dynamic                drawn with probability level / (levels - 1)
    threshold              above the middle of the scale

dequantization (levels -> the unit interval -> the real line, with log-determinants)
    uniform_dequantize, quantize                   (level + noise) / levels, and its inverse
    logit, logit_inverse                           log-odds of alpha + (1 - 2 alpha) y

quantization (vectors to codes)
    nearest_code, code_means                       the nearest of K codes, and how often each one is used
    straight_through       a value with the gradient of what it replaces
    scalar_values, scalar_code, scalar_vector      FSQ: numbers rounded to a few levels, and their code
    perplexity             how many codes are used, as if equally often

augmentation (of images, by a matrix in homogeneous coordinates)
    scaling, rotation, translation                 the matrix of a map about the centre
    resample               values of the mapped image, without aliasing

resize
    bilinear_tf1           bilinear resizing as in TensorFlow 1, the one of the FID

levels (integer levels <-> [0, 1] and [-1, 1])
    to_unit, to_symmetric  scale levels to a range
    symmetric_to_unit      moves [-1, 1] to [0, 1]
    from_symmetric, nearest_level                  round to the nearest level
    measure                names the base measure of a likelihood of L levels

checks
    assert_batch_of_events, check_levels           checks of arguments that several rooms share

bijectors (z = f(x) and log |det df/dx| [B]; each has its `*_inverse`)
    additive_coupling      z = x + t, of one part given the other
    affine_coupling        z = x exp(log s) + t, the log-scale bounded
    scaling                a log-scale for each dimension
    actnorm                a scale and a shift for each channel; actnorm_from_batch initialises them
    invertible_conv        1x1 convolution by its LU factors; lu_factors makes them
    squeeze, unsqueeze     2 x 2 pixels into channels, and back
    checkerboard_mask, channel_mask                        which part a coupling transforms

channel_map (Glow's actnorm and 1x1 convolution as one affine map)
    channel_map, channel_map_inverse               the map and its inverse, from the parameters of both
    apply                                          the map at every position, with its log-determinant

splines
    spline_knots           K bins from 3 K - 1 free numbers
    rational_quadratic     the monotone spline through them, elementwise; rational_quadratic_inverse
    spline_coupling        a coupling by splines; spline_coupling_inverse

cpu (forms that are fast on a CPU, equal to the plain operations)
    conv                   convolution of stride 1; its kernel gradient is fast on CPU and in a scan
    causal_conv            dilated causal convolution of sequences
    conv_transpose         transposed convolution of kernel 4 and stride 2
    strided_conv           convolution whose derivatives are fast inside of loops
    pointwise              x @ w at every position
    relu                   stores its output alone for the derivative
    group_norm             normalisation over all places and the channels of a group

attention (scaled dot-product attention)
    attention, attention_of_one_query              of all queries; of one, as a step of sampling needs it

divergence
    exact_divergence, probed_divergence            the trace of a field's Jacobian: exact, and by a probe (Hutchinson)

adaptive_ode
    solve                  dy / dt = f(y, t) with steps chosen for a tolerance

gaussian_path (x_t = a(t) x_0 + s(t) eps; a GaussianPath gives drift, squared_diffusion, velocity, time_at_log_snr)
    variance_preserving, sub_variance_preserving, variance_exploding, cosine       score-based SDEs
    edm, linear, trigonometric                     EDM, flow matching, the arc of v

predictions (the parts of x_t that a network predicts, from the factors a_t and s_t)
    diffuse                                        a sample of q(x_t | x_0)
    prediction_from_x0, _eps, _v, _score           any of them -> the pair (x_0, eps): a Prediction
    prediction_from_preconditioned, preconditioned_target      the same for EDM's network, and what it should output
    v_target, score, log_snr                       v and score of such a pair; log of a_t^2 / s_t^2
    per_example                                    [B] values shaped for [B, ...] data

orders (of dimensions: [D], the dimension at each place)
    raster, column, spiral, random                 row by row, column by column, from the centre, drawn
    named                                          those that data of a shape have, by name

transitions (discrete diffusion by matrices over the states of a dimension)
    uniform, gaussian, absorbing, from_matrices    the processes; a Transitions
    linear_betas, cosine_betas, masking_betas      the noise of each step
    diffuse                                        a sample of q(x_t | x_0)
    posterior_log_prob, reverse_log_prob           log q(x_(t-1) | x_t, x_0), and p(x_(t-1) | x_t) of a prediction

masking (which dimensions are masked at which time of absorbing diffusion)
    linear, cosine         alpha(t), the probability that a dimension is visible
    loss_weight            the weight of a time in the bound
    draw_masked, draw_counts, draw_orders, mask_first      masks at a time, and masks of a given size

diffusion_process (time counts from 1; abar_0 = 1)
    linear_schedule, quadratic_schedule, cosine_schedule, schedule_from_betas      log abar_t of t = 0 ... T: a Schedule
    signal_and_noise                               sqrt(abar_t) and sqrt(1 - abar_t)
    transition_mean, transition_variance           q(x_t | x_s) for s < t
    posterior_mean, posterior_variance             q(x_s | x_t, x_0) for s < t
"""
