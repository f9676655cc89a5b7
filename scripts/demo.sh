#!/usr/bin/env bash
# Builds s4, starts a cluster on this machine, and analyses every flight out of New York in 2013 with it.
# Usage: scripts/demo.sh [NODES]   (3 without an argument)
# The commands of maps are for the shells of the nodes, and the exported file is made here.
# shellcheck disable=SC2016,SC1091
set -euo pipefail
cd "$(dirname "$0")/.."
nodes=${1:-3}

need() { # need PROGRAM HOW-TO-GET-IT
    command -v "$1" >/dev/null || { echo "demo: '$1' is missing: $2" >&2; exit 1; }
}
need cargo "install a Rust toolchain, as on https://rustup.rs"
need cc "install a C compiler: apt-get install gcc"
need xz "apt-get install xz-utils"

work=$(mktemp -d)
cleanup() {
    umount -l "$work/mnt" 2>/dev/null || fusermount3 -u -z "$work/mnt" 2>/dev/null || true
    s4 local --stop --dir "$work/cluster" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

step() { # step TITLE COMMAND...: runs it and prints its time
    local title=$1 began=$EPOCHREALTIME
    shift
    "$@"
    awk -v title="$title" -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%7.2f s  %s\n", b - a, title }'
}

expect() { # expect WHAT GOT WANTED
    [ "$2" = "$3" ] || { printf 'demo: %s: got\n%s\nand not\n%s\n' "$1" "$2" "$3" >&2; exit 1; }
    echo "           = $1 as known"
}

can_mount() { [ -e /dev/fuse ] && { [ "$(id -u)" = 0 ] || command -v fusermount3 >/dev/null; }; }
by_mount() { # the busiest carrier of each month, started and read through the mount
    mkdir -p "$work/mnt" && s4 mount "$work/mnt" --background
    echo 's4://step2/ s4://step10/ sort -k2,2nr | head -n 1' >"$work/mnt/.s4/map/busiest"
    cat "$work/mnt/.s4/map/busiest" >>"$work/log"
    cat "$work"/mnt/step10/*.csv >"$work/busiest"
}

# S4_DEMO_PROGRAMS=debug takes those that the tests have built.
programs=${S4_DEMO_PROGRAMS:-release}
build() { cargo build --quiet --profile "${programs/debug/dev}"; }
start() { s4 local -n "$nodes" --detach --dir "$work/cluster" >"$work/export" && . "$work/export"; }
unpack() { mkdir "$work/flights" && tar -C "$work/flights" --strip-components=1 -xJf tests/data/flights.tar.xz; }
quiet() { "$@" 2>>"$work/log" || { tail -n 20 "$work/log" >&2; exit 1; }; }

analyse() {
    # 1:1, on each key's node: two columns of each month, then flights by carrier of each month.
    step "map: keep carrier and distance" quiet s4 map s4://flights/ s4://step1/ 'cut -d, -f10,16'
    step "map: count flights by carrier, month by month" \
        quiet s4 map s4://step1/ s4://step2/ 'awk -F, "NR > 1 { n[\$1]++ } END { for (c in n) print c, n[c] }"'
    # 1:n with n = 1: all results get one name, and so come to one node. n:1: one file of them.
    step "map-to-n: bring the counts together" quiet s4 map-to-n s4://step2/ s4://step3/ 'cat > counts && echo counts'
    step "map-from-n: add them up" \
        quiet s4 map-from-n s4://step3/ s4://step4/ 'xargs -d "\n" cat | awk "{ n[\$1] += \$2 } END { for (c in n) print c, n[c] }"'
    # The year by origin airport, spread over twelve files each, and so over the cluster.
    step "map-to-n: reorganise by origin airport" quiet s4 map-to-n s4://flights/ s4://step5/ \
        'awk -F, "NR > 1 { f = sprintf(\"origin_%s_%03d.csv\", \$13, NR % 12); print > f }" && ls'
    step "map-from-n: merge the months" quiet s4 map-from-n s4://step5/ s4://step6/ 'xargs -d "\n" cat'
    step "map: rows and miles of each origin" quiet s4 map s4://step6/ s4://step7/ \
        'awk -F, "{ n++; miles += \$16 } END { print \$13, n, miles }"'
    step "map-to-n, map-from-n: and of the year" quiet sum_up

    expect "flights by carrier" "$(s4 eval s4://step4/counts 'sort -k2,2nr' | tr '\n' ' ')" \
        "UA 58665 B6 54635 EV 54173 DL 48110 AA 32729 MQ 26397 US 20536 9E 18460 WN 12275 VX 5162 FL 3260 AS 714 F9 685 YV 601 HA 342 OO 32 "
    expect "flights by origin" "$(s4 eval s4://step9/rows 'awk "{ n[\$1] += \$2 } END { for (o in n) print o, n[o] }" | sort' | tr '\n' ' ')" \
        "EWR 120835 JFK 111279 LGA 104662 "
    expect "flights and miles" "$(s4 eval s4://step9/rows 'awk "{ n += \$2; miles += \$3 } END { print n, miles }"')" "336776 350217607"
}

sum_up() {
    s4 map-to-n s4://step7/ s4://step8/ 'cat > rows && echo rows'
    s4 map-from-n s4://step8/ s4://step9/ 'xargs -d "\n" cat'
}

busiest=" 1 EV 11 UA "
export PATH="$PWD/target/$programs:$PATH"
step "build" build
step "start $nodes nodes" start
s4 health
step "unpack a year of flights, $(du -h tests/data/flights.tar.xz | cut -f1) packed" unpack
step "cp -r: load it, a key for each month" quiet s4 cp -r "$work/flights" s4://flights/
analyse
if can_mount; then
    step "mount: a map through control files, read with cat" by_mount
    expect "busiest carrier of each month" "$(cut -d' ' -f1 "$work/busiest" | sort | uniq -c | tr -s ' \n' ' ')" "$busiest"
else
    echo "demo: skipped: the mount needs /dev/fuse, and fusermount3 (package fuse3) for users other than root"
fi
echo "The busiest carriers:"
s4 eval s4://step4/counts 'sort -k2,2nr | head -n 5'
step "rm -r: all steps" s4 rm -r s4://step
echo "And the whole again:"
analyse
