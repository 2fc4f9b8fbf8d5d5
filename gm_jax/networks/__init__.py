"""Flax Linen modules: arrays in, arrays out; no loss, no sampling.

mlp.py            fully connected networks, encoder and decoder
convnet.py        convolutional encoder and decoder of small images
fvsbn.py          fully visible sigmoid belief network: logistic regressions on what comes before
nade.py           neural autoregressive distribution estimator: one running activation
made.py           masked autoencoder: degrees, mask sets
masked_conv.py    convolutions that cannot look ahead in raster order, colours included
pixelcnn.py       PixelCNN, and the gated one without a blind spot
pixelrnn.py       PixelRNN: Row LSTM, Diagonal BiLSTM
wavenet.py        WaveNet: dilated causal convolutions
couplings.py      layers of flows, there and back, and the networks inside couplings
nice.py           NICE: additive couplings and one scaling
realnvp.py        RealNVP: affine couplings, of points and, in several scales, of images
glow.py           Glow: actnorm, 1x1 convolution, affine coupling, in several scales
spline_flow.py    neural spline flows: couplings by rational-quadratic splines
gan_mlp.py        fully connected generator and discriminator, and the contract of every such pair
dcgan.py          convolutional generator and discriminator
normalization.py  batch, virtual batch and spectral normalisation, and what they keep
minibatch_discrimination.py   how close the others of a batch lie
inception.py      Inception v3 as the FID knows it, for evaluation
digit_classifier.py   the small classifier of digits, for evaluation
conditioning.py   what a class label adds
"""
