"""What a train step costs on a TPU topology that is not there.

plan.py      one plan for each topology: the verb's table, picture and JSON
roofline.py  the step compiled for a topology, and the bounds on its time
hlo.py       a compiled program read as text: its loops and its collectives
flops.py     the multiply-adds of a program
tpus.py      the chips: peak, memory, bandwidth, interconnect
"""
