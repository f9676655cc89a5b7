#!/usr/bin/env bash
# Makes a cluster usable whose ports are closed to this machine, by way of a host that ssh reaches and that reaches the nodes:
#
#   eval "$(scripts/connect_to_cluster.sh [SSH OPTIONS] HOST)"
#
# s4 and s4-mount then go through ssh. The connection stays in the background; 'ssh -O exit -S "$S4_SSH_SOCKET" HOST' ends it.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: eval \"\$(${0##*/} [SSH OPTIONS] HOST)\"" >&2; exit 2; }

socket=$(mktemp -u "${TMPDIR:-/tmp}/s4-ssh.XXXXXXXXXX")
# A port may be taken by another between the choice and its use: ssh says so, and another is tried.
for _ in 1 2 3 4 5; do
    port=$((10000 + RANDOM % 20000))
    if ssh -f -N -M -S "$socket" -D "127.0.0.1:$port" -o ExitOnForwardFailure=yes -o ServerAliveInterval=15 "$@" >/dev/null; then
        printf 'export ALL_PROXY=socks5h://127.0.0.1:%s\nexport S4_SSH_SOCKET=%q\n' "$port" "$socket"
        exit
    fi
done
echo "${0##*/}: no connection" >&2
exit 1
