#!/usr/bin/env bash
# Runs Ceph's conformance suite of S3 against `s4-s3 serve` on a cluster of three nodes.
# Usage: scripts/s3-conformance.sh DIR [OPTION OF PYTEST...]: DIR is a checkout of https://github.com/ceph/s3-tests.
# A test may fail only if scripts/s3-clients/conformance-excluded.txt names it under a rule, and then it must fail.
set -euo pipefail
cd "$(dirname "$0")/.."
tests=$(realpath "${1:?usage: scripts/s3-conformance.sh DIR, a checkout of ceph/s3-tests}")
shift
venv=$PWD/target/s3-clients/conformance
[ -x "$venv/bin/pytest" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check pytest boto3 munch isodate requests pytz lxml httplib2 pyyaml; }

work=$(mktemp -d)
# shellcheck source=scripts/s3-clients/lib/door.sh
. scripts/s3-clients/lib/door.sh
trap stop_door EXIT
start_door

# The suite wants several users. All are the one user here, and what needs another is on the list.
user="access_key = $AWS_ACCESS_KEY_ID
secret_key = $AWS_SECRET_ACCESS_KEY
display_name = s4
user_id = s4
email = none"
address=${S3_ENDPOINT#http://}
cat >"$work/s3tests.conf" <<END
[DEFAULT]
host = ${address%:*}
port = ${address#*:}
is_secure = False
[fixtures]
bucket prefix = conformance-{random}-
[s3 main]
api_name = us-east-1
$user
[s3 alt]
$user
[s3 tenant]
tenant = none
$user
[iam]
$user
[iam root]
$user
[iam alt root]
$user
END
export S3TEST_CONF=$work/s3tests.conf PYTHONPATH=$PWD/scripts/s3-clients/lib PYTHONDONTWRITEBYTECODE=1
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
excluded=$PWD/scripts/s3-clients/conformance-excluded.txt
cd "$tests"
"$venv/bin/pytest" -q -p conformance --excluded "$excluded" -p no:cacheprovider --tb=line s3tests/functional/test_s3.py s3tests/functional/test_headers.py "$@"
