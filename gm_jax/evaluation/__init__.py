"""The numbers that the field judges by, each with its kind, its unit and what it was computed on.

likelihood.py   mean log-likelihood of a split, every example once
kde.py          log-density of samples' kernels, for models without a likelihood
mode_coverage.py   modes of a known mixture that samples reach
report.py       results.json and the table of results
"""
