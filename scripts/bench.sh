#!/usr/bin/env bash
# Measures s4 against the same work without it, in the same run; --help tells the options.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v python3 >/dev/null || { echo "bench: python3 is missing: apt-get install python3" >&2; exit 1; }
cargo build --release --quiet
PYTHONDONTWRITEBYTECODE=1 exec python3 scripts/bench --bin target/release "$@"
