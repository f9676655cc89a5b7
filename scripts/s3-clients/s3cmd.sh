#!/usr/bin/env bash
# s3cmd. `--host-bucket` without %(bucket)s gives path style. `--skip-existing` leaves out keys that exist.
# needs: pip s3cmd
. "$(dirname "$0")/lib/steps.sh"

host=${S3_ENDPOINT#http://}
s4cmd() {
    s3cmd --config=/dev/null --no-ssl --host="$host" --host-bucket="$host" --region=us-east-1 \
        --access_key="$AWS_ACCESS_KEY_ID" --secret_key="$AWS_SECRET_ACCESS_KEY" --no-progress "$@"
}
put() { s4cmd put "$small" "s3://$BUCKET/a/small" && stored a/small "$small"; }
get() { s4cmd get "s3://$BUCKET/a/small" "$got" && cmp "$got" "$small"; }
list() { s4cmd ls "s3://$BUCKET/a/" | grep -q " $(stat -c %s "$small") *s3://$BUCKET/a/small$"; }
range() { head -c 5000 "$small" >"$got" && s4cmd get --continue "s3://$BUCKET/a/small" "$got" && cmp "$got" "$small"; } # the rest
parts() { s4cmd put --multipart-chunk-size-mb=5 "$large" "s3://$BUCKET/a/large" && stored a/large "$large"; }
stream() { s4cmd put --multipart-chunk-size-mb=5 - "s3://$BUCKET/a/stream" <"$large" && s4cmd get "s3://$BUCKET/a/stream" - | cmp - "$large"; }
copy() { s4cmd cp "s3://$BUCKET/a/small" "s3://$BUCKET/b/small" && stored b/small "$small"; }
move() { s4cmd mv "s3://$BUCKET/b/small" "s3://$BUCKET/c/small" && stored c/small "$small"; }
sync() { # the second one has nothing to do
    mkdir -p "$WORK/sync" && cp "$small" "$WORK/sync/one" && cp "$other" "$WORK/sync/two" && touch -d "1 hour ago" "$WORK"/sync/*
    s4cmd sync "$WORK/sync/" "s3://$BUCKET/sync/"
    ! s4cmd sync --no-check-md5 "$WORK/sync/" "s3://$BUCKET/sync/" | grep upload:
}
again() { s4cmd put "$small" "s3://$BUCKET/a/small"; }
overwrite() { s4cmd put "$other" "s3://$BUCKET/a/small"; }
wrong_secret() { AWS_SECRET_ACCESS_KEY=wrong s4cmd get "s3://$BUCKET/a/small" "$got"; }
delete() { s4cmd del "s3://$BUCKET/a/small" && ! s4cmd ls "s3://$BUCKET/a/" | grep small; }
delete_all() { s4cmd del --recursive --force "s3://$BUCKET/" && [ -z "$(s4cmd ls "s3://$BUCKET/")" ]; }

steps put get list range parts stream copy move sync again
refused "$taken" overwrite
refused "$forbidden" wrong_secret
steps delete delete_all
