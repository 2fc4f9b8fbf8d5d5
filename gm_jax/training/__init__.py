"""The train step, where it runs, and the loop around it; nothing here knows a family.

state.py        what training carries: data only
step.py         one update of every player, written once per device
parallel.py     where the step runs: jit, pmap, and vmap as their oracle
optimizers.py   schedules and gradient transformations from optax
loop.py         the effects: calls, metrics, validation, saves, signals
metrics.py      metrics.jsonl and TensorBoard
checkpoint.py   verified checkpoints
"""
