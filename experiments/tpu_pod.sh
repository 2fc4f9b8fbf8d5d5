#!/bin/sh
# Starts an experiment on every worker of a TPU VM slice, in one session each, and waits for the end:
#
#     experiments/tpu_pod.sh NAME ZONE EXPERIMENT [flags]
#     experiments/tpu_pod.sh my-pod us-east5-a vae --workdir gs-mounted/vae --train.parallel pmap
#
# The same again goes on where the run stopped. --workdir must lie on a file system that all workers share (Filestore,
# or a bucket mounted with gcsfuse); only worker 0 writes logs and pictures there. The clone is at ~/gm_jax of every
# worker, or where GM_JAX says, and at the same commit: the workers compare it, and their data, before the first step.
# One `make setup` there, with `pip install -e '.[tpu]'` after it, prepares a worker.
set -eu

if [ $# -lt 3 ]; then
    sed -n '2,6p' "$0" | cut -c3- >&2
    exit 2
fi
name=$1 zone=$2 experiment=$3
shift 3

# Each argument quoted for the shell of the worker.
quoted=
for argument in "$@"; do
    quoted="$quoted '$(printf '%s' "$argument" | sed "s/'/'\\\\''/g")'"
done

exec gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command \
    "cd ${GM_JAX:-gm_jax} && exec .venv/bin/python -m experiments.$experiment train --cluster.coordinator auto$quoted"
