#!/usr/bin/env bash
# Fuzzes the parsers of what others have written. Usage: scripts/fuzz.sh [SECONDS [TARGET...]]   (10 s each, all of them)
# What is found is kept below fuzz/corpus and fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "skipped: fuzzing needs a nightly toolchain and cargo-fuzz: rustup toolchain install nightly && cargo install cargo-fuzz"
    exit 0
fi
seconds=${1:-10}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || mapfile -t all < <(cargo +nightly fuzz list)
for target in "${@:-${all[@]}}"; do
    echo "fuzz: $target"
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -verbosity=0
done
