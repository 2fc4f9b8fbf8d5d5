"""Flax Linen modules: arrays in, arrays out; no loss, no sampling loop, no jit.

mlp.py                        perceptron; encoder and decoder of a VAE
convnet.py                    convolutional encoder and decoder of small images
fvsbn.py                      fully visible sigmoid belief network: one logistic regression for each dimension
nade.py                       neural autoregressive distribution estimator: one running activation
made.py                       masked autoencoder: degrees, mask sets
masked_conv.py                convolutions that respect raster order, colours included
pixel_network.py              what PixelCNN and PixelRNN share: fields, scaling, readout, cache
pixelcnn.py                   PixelCNN, and the gated PixelCNN without a blind spot
pixelcnn_pp.py                PixelCNN++: two streams at several scales, weight normalisation
pixelrnn.py                   PixelRNN: Row LSTM, Diagonal BiLSTM
wavenet.py                    WaveNet: dilated causal convolutions
transformer_trunk.py          the layers that all transformers of tokens share
transformer.py                causal transformer: masked self-attention, keys and values kept
masked_transformer.py         transformer that predicts masked dimensions from all visible ones
couplings.py                  invertible layers, and their chains
conditioners.py               the networks inside couplings
nice.py                       NICE: additive couplings and one scaling
realnvp.py                    RealNVP: affine couplings of points, and of images at several scales
glow.py                       Glow: actnorm, 1x1 convolution and affine coupling, at several scales
autoregressive_flow.py        MAF and IAF: a flow by MADEs, and its inverse
spline_flow.py                neural spline flow: couplings by rational-quadratic splines
affine_flow.py                affine flow: a normal density of any covariance
gan_mlp.py                    fully connected generator and discriminator; the contract of every such pair
dcgan.py                      convolutional generator and discriminator
gan_resnet.py                 residual generator and discriminator of WGAN-GP and SNGAN
dropout.py                    dropout that a key turns on
minibatch_discrimination.py   how close an example is to the rest of its batch
normalization.py              group, batch, virtual batch, spectral and weight normalisation, and their state
unet.py                       the U-Net of DDPM, for images
text_encoder.py               transformer that reads captions, padding masked
log_error.py                  the error that a denoiser is expected to make, given the time and the caption
dit.py                        diffusion transformer with adaLN-Zero, of labels or of text
autoencoder.py                convolutional autoencoder whose latents are a small image
diffusion_mlp.py              residual perceptron for the diffusion of points and latents
rbm.py                        restricted Boltzmann machine: weights and biases of binary units on two sides
energy.py                     scalar energies of points and images
attention.py                  self-attention over an image; multi-head and cross-attention; a transformer's block
convolution.py                convolutions whose gradients are fast inside of loops
two_times.py                  a network of two times, for mean velocities
time_embedding.py             sinusoidal embedding of the time, and of a label
label_bias.py                 the bias that a class label adds
class_conditional.py          networks that see a label, made of networks that do not; projection discriminators
inception.py                  Inception v3 as FID uses it, for evaluation
digit_classifier.py           a small classifier of digits, for evaluation
"""
