#!/usr/bin/env bash
# Measures s4 against the same work without it, in the same run. Usage: scripts/bench.sh [--quick] [--json] [-n NODES]
set -euo pipefail
cd "$(dirname "$0")/.."
command -v python3 >/dev/null || { echo "bench: python3 is missing: apt-get install python3" >&2; exit 1; }
cargo build --release --quiet
exec python3 scripts/bench.py --bin target/release "$@"
