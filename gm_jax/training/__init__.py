"""The train step, where it runs, and the loop around it; nothing here knows a family.

state.py        what training carries: data only
step.py         one update of every player, written once per device
parallel.py     where the step runs: jit, pmap, and vmap as their oracle
agreement.py    what several processes agree on
optimizers.py   schedules and gradient transformations from optax
early_stopping.py    when validation has stopped improving
loop.py         the effects: calls, metrics, validation, saves, signals
metrics.py      metrics.jsonl and TensorBoard
checkpoint.py   verified checkpoints
planning.py     what a step costs on TPUs that are not there
hlo.py          what a compiled program says: its collectives and loops
chips.py        TPU chips and slices, as Google documents them
"""
