#!/usr/bin/env bash
# Runs every operation under every fault, on hosts with disks of their own, and prints what came of it as a table. Needs root.
# Usage: scripts/faults.sh [CELLS]: only the cells whose name, as "map-to-n x power", has CELLS in it.
set -euo pipefail
cd "$(dirname "$0")/.."
S4_TEST_CELLS=${1:-} exec cargo test --locked --test e2e every_operation_under_every_fault -- --ignored --nocapture
