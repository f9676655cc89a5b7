#!/usr/bin/env bash
# A cluster of s4 on the nodes of a Slurm job, for as long as one command runs: a daemon on each, with its local scratch. At the end
# the daemons are ended and all keys are gone, so the command copies its results out.
#
#   sbatch --nodes=8 --exclusive scripts/slurm.sh CMD [ARG...]
#   salloc --nodes=8 --exclusive scripts/slurm.sh bash
#
# The programs must be in the PATH of every node. Variables: S4_SCRATCH, the local directory (default: $SLURM_TMPDIR, $TMPDIR or
# /tmp); S4_PORT (default: one made from the job's id); S4_SERVER_OPTIONS, options of each daemon.
set -euo pipefail

die() { echo "slurm.sh: $*" >&2; exit 1; }
[ $# -gt 0 ] || { sed -n '2,9s/^# \?//p' "$0" >&2; exit 2; }
[ -n "${SLURM_JOB_ID:-}" ] || die "not in a job of Slurm: sbatch --nodes=N $0 CMD, or salloc"
for program in s4 s4-server scontrol srun; do
    command -v "$program" >/dev/null || die "no $program in PATH"
done

export S4_SLURM_DIR=${S4_SCRATCH:-${SLURM_TMPDIR:-${TMPDIR:-/tmp}}}/s4-$SLURM_JOB_ID
port=${S4_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
count=$(wc -l <<<"$nodes")
# No shared file system is needed: each node gets the texts in its environment, which only its user can read.
S4_SLURM_CONF=${nodes//$'\n'/:$port$'\n'}:$port
S4_SLURM_SECRET=$(head -c 24 /dev/urandom | base64)
export S4_SLURM_CONF S4_SLURM_SECRET S4_SLURM_OPTIONS=${S4_SERVER_OPTIONS:-}

on_each=(srun --nodes="$count" --ntasks="$count" --ntasks-per-node=1 --overlap --kill-on-bad-exit=0)
# shellcheck disable=SC2016  # For the shell of each node.
serve='
set -eu
umask 077
mkdir "$S4_SLURM_DIR"
printf "%s\n" "$S4_SLURM_CONF" >"$S4_SLURM_DIR/s4.conf"
printf "%s\n" "$S4_SLURM_SECRET" >"$S4_SLURM_DIR/s4.conf.secret"
options=$S4_SLURM_OPTIONS
# Commands of maps inherit the environment of the daemon.
unset S4_SLURM_CONF S4_SLURM_SECRET S4_SLURM_OPTIONS
s4-server --conf "$S4_SLURM_DIR/s4.conf" --data "$S4_SLURM_DIR/data" --init
s4-server --conf "$S4_SLURM_DIR/s4.conf" --data "$S4_SLURM_DIR/data" $options &
# scancel ends this before the job could ask each node to clean up.
trap "kill -TERM $!" TERM INT
wait || wait || true
rm -rf "$S4_SLURM_DIR"
'

daemons=
down() {
    trap '' TERM INT
    if [ -n "$daemons" ]; then
        # srun hands the signal to each daemon, which ends its commands.
        kill -TERM "$daemons" 2>/dev/null || true
        wait "$daemons" || true
    fi
    # shellcheck disable=SC2016
    "${on_each[@]}" sh -c 'rm -rf "$S4_SLURM_DIR"' || true
}
trap down EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

"${on_each[@]}" bash -c "$serve" >"slurm-s4-$SLURM_JOB_ID.log" 2>&1 &
daemons=$!
export S4_CONF_PATH=$S4_SLURM_DIR/s4.conf
for ((waited = 0; ; waited++)); do
    [ ! -f "$S4_CONF_PATH.secret" ] || ! s4 health >/dev/null 2>&1 || break
    kill -0 "$daemons" 2>/dev/null || die "a daemon did not start: $(tail -n 3 "slurm-s4-$SLURM_JOB_ID.log")"
    [ "$waited" -lt 60 ] || die "not healthy after a minute: $(s4 health 2>&1 | grep -v healthy | head -n 3)"
    sleep 1
done
"$@"
