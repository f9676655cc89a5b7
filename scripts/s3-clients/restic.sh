#!/usr/bin/env bash
# restic (Debian's package), backups. Its files are named after their content, so that it never overwrites one.
# needs: apt restic restic
. "$(dirname "$0")/lib/steps.sh"
export RESTIC_REPOSITORY=s3:$S3_ENDPOINT/$BUCKET/repo RESTIC_PASSWORD=backup RESTIC_CACHE_DIR=$WORK/cache

backup() { restic -q backup "$WORK/data"; }
put() { mkdir "$WORK/data" && cp "$small" "$large" "$WORK/data" && restic -q init && backup; }
get() { restic -q restore latest --target "$got" && cmp "$got$WORK/data/small" "$small" && cmp "$got$WORK/data/large" "$large"; }
list() { restic -q ls latest | grep -q "$WORK/data/small" && [ "$(restic -q snapshots --json | grep -o '"short_id"' | wc -l)" = 1 ]; }
check() { restic -q check --read-data; } # reads packs, and their ends, in ranges
again() { cp "$other" "$WORK/data/small" && backup && [ "$(restic -q snapshots --json | grep -o '"short_id"' | wc -l)" = 2 ]; }
wrong_secret() { AWS_SECRET_ACCESS_KEY=wrong timeout 20 restic snapshots; }
delete() { restic -q forget --keep-last 1 --prune && restic -q check; }

steps put get list check again
line overwrite none "its names are new, always"
refused "$forbidden|not match" wrong_secret
steps delete
lacks copy
