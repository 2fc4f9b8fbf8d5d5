#!/bin/sh
# Runs an experiment on every worker of a TPU VM slice. It goes on when this machine, or its ssh, goes away:
#
#     tools/tpu_pod.sh start NAME ZONE EXPERIMENT [flags]    on all workers, and watch
#     tools/tpu_pod.sh watch NAME ZONE [WORKER]              what worker 0 (or another, or all) prints; Ctrl-C ends this
#     tools/tpu_pod.sh stop NAME ZONE                        it saves and leaves
#
#     tools/tpu_pod.sh start my-pod us-east5-a vae --workdir /mnt/shared/vae --train.parallel pmap
#
# The same again goes on where the run stopped. --workdir must lie on a file system that all workers share, NFS
# (Filestore); not a bucket mounted with gcsfuse, which renames no folder at one stroke, as checkpoints need, and shows
# files as they were. The clone is at ~/gm_jax of every worker, or where GM_JAX says, and at the same commit: the
# workers compare it, and their data, before the first step. watch and stop leave with the run's exit code.
set -eu

usage() {
    sed -n '4,6p' "$0" | cut -c3- >&2
    exit 2
}

# On which workers, and what: the command line's flags are "$@" there.
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
if running; then echo "$(hostname): a run goes on here; stop it first" >&2; exit 1; fi
rm -f "$here/pid" "$here/code"
PYTHONUNBUFFERED=1 setsid nohup sh -c '\''
    here=$1; shift
    "$@" & echo $! >"$here/pid"
    wait $!; echo $? >"$here/code"
'\'' sh "$here" .venv/bin/python -m "$@" >"$here/log" 2>&1 </dev/null &
for second in 1 2 3 4 5; do [ -s "$here/pid" ] && exit 0; sleep 1; done
exit 1'

watch=$running'
[ -s "$here/pid" ] || { echo "$(hostname): nothing was started here" >&2; exit 1; }
tail -n +1 --pid "$(cat "$here/pid")" -f "$here/log"
code'

stop=$running'
running || { echo "$(hostname): nothing runs here" >&2; exit 0; }
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
    # Each argument quoted for the shell of the worker.
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
