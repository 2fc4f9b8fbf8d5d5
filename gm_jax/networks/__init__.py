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
conditioning.py   what a class label adds
"""
