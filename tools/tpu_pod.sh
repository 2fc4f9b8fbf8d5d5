#!/bin/sh
# Runs an experiment on every worker of a TPU VM slice. The run continues if this machine or its ssh connection is lost.
#
#     tools/tpu_pod.sh start NAME ZONE EXPERIMENT [flags]    starts it on all workers, then shows the output of worker 0
#     tools/tpu_pod.sh watch NAME ZONE [WORKER]              shows the output of worker 0, of another, or of all
#     tools/tpu_pod.sh stop NAME ZONE                        stops it; it saves a checkpoint first
#
#     tools/tpu_pod.sh start my-pod us-east5-a vae --workdir /mnt/nfs/vae --train.parallel pmap --train.batch-size 128
#
# Ctrl-C ends the watching, not the run. The same start command resumes the run. watch and stop return the run's exit
# code. --workdir must lie on a file system that all workers share, such as NFS (Filestore). A bucket mounted with
# gcsfuse does not do: it cannot rename a folder atomically, as checkpoints need, and it shows outdated files. Every
# worker needs a clone of the same commit at ~/gm_jax, or at $GM_JAX: the workers compare code and data before the first
# step.
set -eu

usage() {
    sed -n '4,6p' "$0" | cut -c3- >&2
    exit 2
}

# on_workers WORKERS COMMANDS: runs shell commands on workers; the experiment's command line is "$@" there.
on_workers() {
    gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker="$1" --command "gm_jax='${GM_JAX:-gm_jax}'
here=\${TMPDIR:-/tmp}/gm_jax.\$(id -u)
set -- $quoted
$2"
}

running='running() { [ -s "$here/pid" ] && [ ! -s "$here/code" ] && kill -0 "$(cat "$here/pid")" 2>/dev/null; }
code() {
    for second in 1 2 3 4 5; do [ -s "$here/code" ] && break; sleep 1; done
    exit "$(cat "$here/code" || echo 1)"
}'

start=$running'
cd "$gm_jax" && mkdir -p "$here" || exit
if running; then echo "$(hostname): a run is active here; stop it first" >&2; exit 1; fi
rm -f "$here/pid" "$here/code"
PYTHONUNBUFFERED=1 setsid nohup sh -c '\''
    here=$1; shift
    "$@" & echo $! >"$here/pid"
    wait $!; echo $? >"$here/code"
'\'' sh "$here" .venv/bin/python -m "$@" >"$here/log" 2>&1 </dev/null &
for second in 1 2 3 4 5; do [ -s "$here/pid" ] && exit 0; sleep 1; done
exit 1'

watch=$running'
[ -s "$here/pid" ] || { echo "$(hostname): no run was started here; use start" >&2; exit 1; }
tail -n +1 --pid "$(cat "$here/pid")" -f "$here/log"
code'

stop=$running'
running || { echo "$(hostname): no run is active here" >&2; exit 0; }
kill -TERM "$(cat "$here/pid")"
tail --pid "$(cat "$here/pid")" -f /dev/null
code'

[ $# -ge 3 ] || usage
verb=$1 name=$2 zone=$3 quoted=
shift 3
case $verb in
start)
    [ $# -ge 1 ] || usage
    experiment=$1
    shift
    # Quote each argument for the shell of the worker.
    for argument in "experiments.$experiment" train --cluster.coordinator auto "$@"; do
        quoted="$quoted '$(printf '%s' "$argument" | sed "s/'/'\\\\''/g")'"
    done
    on_workers all "$start"
    on_workers 0 "$watch"
    ;;
watch) on_workers "${1:-0}" "$watch" ;;
stop) on_workers all "$stop" ;;
*) usage ;;
esac
