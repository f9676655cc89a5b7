#!/usr/bin/env bash
# Makes docs/tour.svg, the recording in README.md: runs the session of scripts/record/session.sh on a cluster of this machine,
# and draws what a terminal shows. Usage: scripts/record.sh [OUTPUT]
set -euo pipefail
cd "$(dirname "$0")/.."
for need in python3 xz chromium; do
    command -v "$need" >/dev/null || { echo "record: '$need' is missing" >&2; exit 1; }
done
cargo build --quiet --release
[ -d target/record ] || { python3 -m venv target/record && target/record/bin/pip install --quiet 'pyte==0.8.2'; }
PATH=$PWD/target/release:$PATH PYTHONDONTWRITEBYTECODE=1 \
    exec target/record/bin/python scripts/record "${1:-docs/tour.svg}"
