"""The cost of a train step on a TPU topology, computed without any TPU.

plan.py      one plan for each topology
report.py    plans as a table, Markdown, JSON and a picture
roofline.py  the step compiled for a topology, and the bounds on its time
hlo.py       the text of a compiled program: its loops and its collectives
flops.py     the arithmetic of a compiled program
hbm.py       the bytes that a compiled program reads from HBM and writes to it
tpus.py      the chips: peak, memory, bandwidth, interconnect
"""
