"""The numbers that the field judges by, each with its kind, its unit and what it was computed on.

likelihood.py   mean log-likelihood of a split, every example once
report.py       results.json and the table of results
"""
