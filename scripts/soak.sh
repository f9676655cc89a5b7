#!/usr/bin/env bash
# Random work under random faults for MINUTES (10), on hosts with disks of their own; then everything that was reported must be there,
# and nothing else. Needs root. S4_TEST_SEED=SEED takes the random numbers of another run; an odd seed has daemons with --fsync.
# Usage: scripts/soak.sh [MINUTES]
set -euo pipefail
cd "$(dirname "$0")/.."
S4_TEST_MINUTES=${1:-10} exec cargo test --locked --test e2e whatever_happens_nothing_that_was_reported_is_lost -- --ignored --nocapture
