#!/usr/bin/env bash
# s3fs, a mount of a bucket by FUSE (Debian's package s3fs). `s4 mount` is faster and checks what it reads; this is for machines that have s3fs.
# needs: apt s3fs s3fs
# needs: file /dev/fuse
. "$(dirname "$0")/lib/steps.sh"
mnt=$WORK/mnt

mounted() { # mounted SECRET DIR [OPTION]
    mkdir -p "$2" && printf '%s:%s\n' "$AWS_ACCESS_KEY_ID" "$1" >"$WORK/passwd" && chmod 600 "$WORK/passwd"
    s3fs "$BUCKET" "$2" -o url="$S3_ENDPOINT" -o use_path_request_style -o endpoint=us-east-1 -o passwd_file="$WORK/passwd" -o retries=1 \
        -o multipart_size=5 ${3+"$3"}
}
trap 'umount -l "$mnt" 2>/dev/null || fusermount3 -uz "$mnt"' EXIT

mount() { mounted "$AWS_SECRET_ACCESS_KEY" "$mnt"; }
put() { mkdir "$mnt/a" && cp "$small" "$mnt/a/small" && stored a/small "$small"; }
get() { cmp "$mnt/a/small" "$small"; }
list() { [ "$(ls "$mnt/a")" = small ] && [ "$(stat -c %s "$mnt/a/small")" = "$(stat -c %s "$small")" ]; }
range() { dd if="$mnt/a/small" bs=1 skip=5 count=10 status=none | cmp - <(head -c 15 "$small" | tail -c 10); }
parts() { cp "$large" "$mnt/a/large" && stored a/large "$large"; }
copy() { cp "$mnt/a/small" "$mnt/a/copy" && stored a/copy "$small"; }
move() { mv "$mnt/a/copy" "$mnt/a/moved" && stored a/moved "$small"; }
overwrite() { cp "$other" "$mnt/a/small"; }
wrong_secret() { mounted wrong "$WORK/wrong" -f && mountpoint "$WORK/wrong"; } # in the background it would end silently
delete() { rm "$mnt/a/small" && [ ! -e "$mnt/a/small" ]; }
delete_all() { rm -r "$mnt/a" && [ -z "$(ls "$mnt")" ]; }

steps mount put get list range parts copy move
refused 'Input/output error|not permitted|File exists|Permission denied' overwrite
refused 'invalid credentials' wrong_secret
steps delete delete_all
