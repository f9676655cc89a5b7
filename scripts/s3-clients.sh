#!/usr/bin/env bash
# Runs clients of S3, as their users would, against `s4-s3 serve` on a cluster of three nodes, and prints a line for each client and operation.
# Usage: scripts/s3-clients.sh [CLIENT...]: files of scripts/s3-clients/ without their endings; all without an argument.
# Installs the clients below target/s3-clients; Debian packages as root. Exits with 1 if an operation failed.
# With S3_ENDPOINT and credentials in the environment, it runs them against that server instead.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts=$PWD/scripts/s3-clients
tools=$PWD/target/s3-clients
mkdir -p "$tools"

declare -A files
for file in "$scripts"/*.{py,sh,mjs}; do
    name=${file##*/}
    files[${name%.*}]=$file
done
[ $# -gt 0 ] || { mapfile -t names < <(printf '%s\n' "${!files[@]}" | sort) && set -- "${names[@]}"; }
for client in "$@"; do
    [ -n "${files[$client]-}" ] || { echo "s3-clients: no client '$client': there are ${!files[*]}" >&2; exit 2; }
done

work=$(mktemp -d)
# shellcheck source=scripts/s3-clients/lib/door.sh
. scripts/s3-clients/lib/door.sh
trap stop_door EXIT

install() { # install FILE DIR: puts what the lines `# needs: KIND NAME` of FILE ask for into DIR; prints what cannot be had
    local kind name
    while read -r kind name; do
        [ ! -e "$2/has-${name//\//-}" ] || continue
        case $kind in
            pip) [ -d "$2/venv" ] || python3 -m venv "$2/venv" && "$2/venv/bin/pip" install --quiet --disable-pip-version-check "$name" ;;
            npm) npm install --silent --no-audit --no-fund --prefix "$2" "$name" ;;
            apt) command -v "${name% *}" || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${name#* }" ;;
            file) [ -e "$name" ] ;;
            s3a) s3a_jars "$2" ;;
        esac >&2 || { echo "no $name"; return; }
        touch "$2/has-${name//\//-}"
    done < <(sed -n 's/^\(#\|\/\/\) needs: //p' "$1")
}

s3a_jars() { # s3a_jars DIR: Hadoop's client of S3, which pyspark does not carry but the source package of sagemaker-pyspark does
    "$1/venv/bin/pip" install --quiet --disable-pip-version-check 'setuptools<70' wheel
    "$1/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation --dest "$1/sdist" sagemaker-pyspark
    mkdir -p "$1/jars"
    tar -xzf "$1"/sdist/*.tar.gz -C "$1/jars" --strip-components=3 --wildcards '*/aws-java-sdk-bundle-*.jar' '*/hadoop-aws-*.jar'
    rm -r "$1/sdist"
}

run() { # run CLIENT: prints its lines, with its name before them
    local file=${files[$1]} dir=$tools/$1 lacking
    mkdir -p "$dir"
    lacking=$(install "$file" "$dir" 2>"$work/install")
    if [ -n "$lacking" ]; then
        printf '%-12s skipped: %s: %s\n' "$1" "$lacking" "$(tail -n 1 "$work/install")"
        return
    fi
    export BUCKET=client-$1 WORK=$work/$1 TOOLS=$dir
    mkdir -p "$WORK"
    seq -f 'line %.0f' 1000 >"$WORK/small"
    seq -f 'other line %.0f' 1500 >"$WORK/other"
    cp "$work/large" "$WORK/large"
    curl -sS -o /dev/null -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" -X PUT "$S3_ENDPOINT/$BUCKET"
    (
        export PATH=$dir/venv/bin:$PATH
        case $file in
            *.py) PYTHONPATH=$scripts/lib PYTHONDONTWRITEBYTECODE=1 timeout 300 python3 "$file" ;;
            *.sh) timeout 300 bash "$file" ;;
            *.mjs) timeout 300 node "$file" ;;
        esac
    ) >"$WORK/lines" 2>"$WORK/stderr" || printf 'script\tFAIL\t%s\n' "$(tail -n 3 "$WORK/stderr" | tr '\n' ' ')" >>"$WORK/lines"
    awk -F '\t' -v client="$1" '{ printf "%-12s %-13s %-4s %s\n", client, $1, $2, $3 } $2 == "FAIL" { failed = 1 } END { exit failed }' "$WORK/lines" ||
        failed=1
    rm -rf "$WORK"
}

failed=0
head -c 20M /dev/urandom >"$work/large"
start_door
for client in "$@"; do run "$client"; done
exit "$failed"
