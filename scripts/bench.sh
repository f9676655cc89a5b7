#!/usr/bin/env bash
# Measures s4 against the same work without it, in the same run; --help tells the options.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v python3 >/dev/null || { echo "bench: python3 is missing: apt-get install python3" >&2; exit 1; }
# The quick one shows that the bench works, which the programs of the tests do too: those for speed take minutes to build.
programs=release
for option in "$@"; do [ "$option" != --quick ] || programs=debug; done
cargo build --quiet --profile "${programs/debug/dev}"
PYTHONDONTWRITEBYTECODE=1 exec python3 scripts/bench --bin "target/$programs" "$@"
