"""The numbers that the field judges by, each with its kind, its unit and what it was computed on.

likelihood.py         mean log-likelihood of a split, every example once
kde.py                log-density of samples' kernels, for models without a likelihood
enumeration.py        exact numbers in worlds small enough to count
mode_coverage.py      modes of a known mixture that samples reach
frechet.py            Frechet distance, from moments gathered batch by batch: with Inception's features, the FID
kernel_distance.py    unbiased kernel distance: with Inception's features, the KID
precision_recall.py   which samples look real, and which real examples are covered
inception_score.py    how sure a classifier is, and how evenly its classes are used
report.py             results.json and the table of results
"""
