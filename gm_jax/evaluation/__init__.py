"""The numbers that the field compares models by, each with its kind, its unit and the data that it was computed on.

likelihood.py         mean log-likelihood of a split; every example counts once
partition.py          log Z of an energy-based model from annealed chains, with its bracket
results.py            results.json and the table of results
features.py           the networks whose features samples are compared by: digits-cnn, mnist-cnn, Inception v3
sample_metrics.py     all distances and scores of a set of samples at once
fid.py                the FID: Frechet distance between Inception features of two sets of images
frechet.py            Frechet distance between any features, from moments gathered batch by batch
kernel_distance.py    unbiased kernel distance; with Inception features it is the KID
precision_recall.py   the share of samples that look real, and the share of real examples that are covered
inception_score.py    how certain a classifier is of the samples, and how evenly they use its classes
calibration.py        accuracy and calibration error of a classifier
mode_coverage.py      how many modes of a known mixture the samples reach
obedience.py          how often pictures show what their captions say
scene_reader.py       reads pictures of coloured digits back
kde.py                log-density from kernels on samples, for models without a likelihood
enumeration.py        exact numbers in worlds small enough to enumerate
"""
