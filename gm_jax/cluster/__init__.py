"""Several processes that train one run: how they find each other, compare what they run, and stop together.

config.py           the flags
processes.py        joining, comparing, leaving
rendezvous.py       where the processes meet, before jax
watchdog.py         heartbeats, and the culprit when a process dies or stalls
detached_output.py  output that outlives its terminal
"""
