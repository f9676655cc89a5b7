# What scripts/s3-clients.sh and scripts/s3-conformance.sh share: a cluster of three nodes with its door, in the directory $work.
# shellcheck shell=bash disable=SC2034,SC2154

start_door() { # sets S3_ENDPOINT and credentials; if these are in the environment, they are of a server that runs already
    [ -z "${S3_ENDPOINT-}" ] || return 0
    cargo build --quiet --workspace --bins
    export PATH=$PWD/target/debug:$PATH
    S4_CONF_PATH=$(s4 local -n 3 --detach --dir "$work/cluster" | sed 's/^[^=]*=//')
    export S4_CONF_PATH
    s4-s3 serve --listen 127.0.0.1:0 >"$work/door" 2>"$work/door-log" &
    door=$!
    for _ in $(seq 100); do
        S3_ENDPOINT=$(grep -om1 'http://[0-9.:]*' "$work/door") && break
        sleep 0.1
    done
    AWS_SECRET_ACCESS_KEY=$(cat "$work/cluster/s4.conf.secret")
    export S3_ENDPOINT AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID=s4
}

stop_door() {
    [ -z "${door-}" ] || kill "$door" 2>/dev/null || true
    s4 local --stop --dir "$work/cluster" 2>/dev/null || true
    rm -rf "$work"
}
