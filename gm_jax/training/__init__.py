"""The train step, where it runs, and the loop around it; nothing here knows a family.

state.py        what training carries: arrays only
step.py         one update of every player, written once per device
model_state.py  how devices keep the model state: averaged, fixed, or by rows
ema.py          the moving average of the parameters
optimizers.py   learning-rate schedules, gradient clipping, Adam, gradient accumulation
parallel.py     where the step runs: jit, pmap, and vmap as their oracle
multihost.py    broadcast and all-gather of JSON between processes; all-or-none calls
early_stopping.py  when validation has stopped improving
loop.py         the loop and its effects: calls, metrics, validation, saves, signals
metrics.py      metrics.jsonl: write it, read it, average it over the steps of a call
checkpoint.py   verified checkpoints: the latest few and the best
orbax_files.py  Orbax and TensorStore, synced to the disk and quiet when they fail
manifest.py     the hashes in a checkpoint, and how it differs from the run that reads it
"""
