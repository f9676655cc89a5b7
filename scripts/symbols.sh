#!/usr/bin/env bash
# Tells whether programs start where the C library is as old as GLIBC: scripts/symbols.sh [--to-relink] GLIBC PROGRAM...
# Reads the versions of the symbols that each needs, and refuses symbols without a version that must be there: a newer
# C library than the one at build time would have them.
# --to-relink: the programs are linked on this machine, for tests. Tells whether they could be linked for GLIBC: functions
# that it has in another version are none that it lacks.
set -euo pipefail

# What glibc has had since before 2.28, and gives another version since.
readonly REVERSIONED='__libc_start_main|dlsym|dladdr|pow|exp|log|l?stat(64)?|fstat(at)?(64)?|mknod|pthread_[a-z_]+|sem_[a-z]+|getcontext'
# The unwinder of newer compilers; zig's has it not.
readonly UNWINDER='_dl_find_object'

relink=
[ "${1:-}" != --to-relink ] || { relink=1; shift; }
[ $# -ge 2 ] || { echo "usage: scripts/symbols.sh [--to-relink] GLIBC PROGRAM..." >&2; exit 2; }
most=$1
shift

is_newer() { [ "$(printf '%s\n' "$1" "$most" | sort -V | tail -n 1)" != "$most" ]; } # is_newer VERSION

status=0
complain() { echo "symbols: $*" >&2; status=1; }

for program in "$@"; do
    # Kind and name of each symbol that the program needs.
    needed=$(LC_ALL=C readelf --wide --dyn-syms "$program" | awk '$7 == "UND" && $8 != "" { print $5, $8 }')
    versions=$(LC_ALL=C readelf --wide --version-info "$program" | grep -o 'Name: GLIBC_[0-9.]*' | sed 's/.*GLIBC_//' | sort -Vu)
    [ -n "$versions" ] || complain "$program: no versions of the C library's symbols: is it a program for glibc?"
    for version in $versions; do
        is_newer "$version" || continue
        users=$(awk -v end="@GLIBC_$version" 'index($2, end) == length($2) - length(end) + 1' <<<"$needed")
        if [ -n "$relink" ]; then
            # Programs look for weak symbols themselves, and do without.
            users=$(awk '$1 != "WEAK"' <<<"$users" | grep -vE " ($REVERSIONED|$UNWINDER)@" || true)
        fi
        if [ -z "$relink" ] || [ -n "$users" ]; then
            complain "$program needs glibc $version, and $most is asked for: ${users//$'\n'/, }"
        fi
    done
    bare=$(awk '$1 == "GLOBAL" && $2 !~ /@/ { print $2 }' <<<"$needed")
    [ -z "$bare" ] || complain "$program needs symbols of no known version: ${bare//$'\n'/, }"
done
[ "$status" != 0 ] || echo "glibc $most or later: $*"
exit "$status"
