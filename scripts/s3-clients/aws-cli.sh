#!/usr/bin/env bash
# The command line of AWS. Its options may be variables or lie in ~/.aws/config. It takes path style by itself where the endpoint is an
# address; for a host name: `aws configure set default.s3.addressing_style path`.
# needs: pip awscli
. "$(dirname "$0")/lib/steps.sh"
export AWS_ENDPOINT_URL=$S3_ENDPOINT AWS_REGION=us-east-1

put() { aws s3 cp "$small" "s3://$BUCKET/a/small" && stored a/small "$small"; }
get() { aws s3 cp "s3://$BUCKET/a/small" "$got" && cmp "$got" "$small"; }
list() { aws s3 ls "s3://$BUCKET/a/" | grep -q " $(stat -c %s "$small") small$"; }
range() { aws s3api get-object --bucket "$BUCKET" --key a/small --range bytes=5-14 "$got" && cmp "$got" <(head -c 15 "$small" | tail -c 10); }
parts() { aws s3 cp "$large" "s3://$BUCKET/a/large" && stored a/large "$large"; }
parts_down() { aws s3 cp "s3://$BUCKET/a/large" "$got" && cmp "$got" "$large"; }
stream() { aws s3 cp - "s3://$BUCKET/a/stream" <"$large" && aws s3 cp "s3://$BUCKET/a/stream" - | cmp - "$large"; }
copy() { aws s3 cp "s3://$BUCKET/a/small" "s3://$BUCKET/b/small" && stored b/small "$small"; }
copy_in_parts() { aws s3 cp "s3://$BUCKET/a/large" "s3://$BUCKET/b/large" && stored b/large "$large"; }
sync() { # the second one has nothing to do
    mkdir -p "$WORK/sync" && cp "$small" "$WORK/sync/one" && cp "$other" "$WORK/sync/two" && touch -d "1 hour ago" "$WORK"/sync/*
    aws s3 sync "$WORK/sync" "s3://$BUCKET/sync/"
    [ -z "$(aws s3 sync "$WORK/sync" "s3://$BUCKET/sync/")" ]
}
presign() { curl -sf "$(aws s3 presign "s3://$BUCKET/a/small")" | cmp - "$small"; }
again() { aws s3 cp "$small" "s3://$BUCKET/a/small"; }
overwrite() { aws s3 cp "$other" "s3://$BUCKET/a/small"; }
wrong_secret() { AWS_SECRET_ACCESS_KEY=wrong aws s3 cp "s3://$BUCKET/a/small" "$got"; }
delete() { aws s3 rm "s3://$BUCKET/a/small" && ! aws s3 ls "s3://$BUCKET/a/small"; }
delete_all() { aws s3 rm --recursive "s3://$BUCKET/" && [ -z "$(aws s3 ls "s3://$BUCKET/")" ]; }

steps put get list range parts parts_down stream copy copy_in_parts sync presign again
refused "$taken" overwrite
refused "$forbidden" wrong_secret
steps delete delete_all
