"""Every family side by side, each trained for the same time and measured alike.

families.py        the table of families
train_for_time.py  training for a time instead of a number of steps
measure.py         the numbers of one family on one data set
report.py          all of them on one page
"""
