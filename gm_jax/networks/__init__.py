"""Flax Linen modules: arrays in, arrays out; no loss, no sampling.

mlp.py       fully connected networks, encoder and decoder
convnet.py   convolutional encoder and decoder of small images
"""
