#!/usr/bin/env bash
# Runs pjdfstest in a mount; needs root. Installs it below target first.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ -x target/pjdfstest/bin/pjdfstest ]] || cargo install --quiet --root target/pjdfstest pjdfstest@0.2.2
PJDFSTEST=$PWD/target/pjdfstest/bin/pjdfstest exec cargo test --test e2e pjdfstest -- --nocapture
