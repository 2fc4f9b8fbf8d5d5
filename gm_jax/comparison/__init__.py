"""Trains all families for the same time, measures them in the same way and reports them on one page.

families.py        the table of families
train_for_time.py  trains a run for a fixed time instead of a number of steps
measure.py         measures one family on one data set
evaluations.py     evaluations of the network for one sample
intervals.py       both ends of a mean -log p, and what makes them
report.py          writes the page: report.html, report.md and results.json
templates/         Jinja2 templates of the page
"""
