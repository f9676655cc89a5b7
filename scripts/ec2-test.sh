#!/usr/bin/env bash
# Tests the scripts for clusters on EC2 against moto's EC2, which has no machines: ssh and `s4 cluster` are replaced by recorders.
# Installs moto and awscli from PyPI, in target/ec2-test.
# shellcheck disable=SC2016  # Queries are quoted.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d "${TMPDIR:-/tmp}/s4-ec2-XXXXXX")
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
tools=$PWD/target/ec2-test
if [ ! -x "$tools/bin/moto_server" ] || [ ! -x "$tools/bin/aws" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet 'moto[server]' awscli
fi

checks=0
fail() { echo "ec2-test: $*" >&2; cat "$work/output" >&2; exit 1; }
same() { # same WHAT WANTED HAD
    [ "$2" = "$3" ] || fail "$1: not '$2' but '$3'"
    checks=$((checks + 1))
}

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$tools/bin/moto_server" -H 127.0.0.1 -p "$port" >"$work/moto" 2>&1 &
server=$!
mkdir "$work/bin" "$work/home"
for program in ssh s4; do
    printf '#!/bin/sh\necho "%s $*" >>"%s/calls"\nexec sh "%s/%s-does"\n' "$program" "$work" "$work" "$program" >"$work/bin/$program"
    chmod +x "$work/bin/$program"
done
does() { echo "$2" >"$work/$1-does"; } # does PROGRAM SCRIPT
does ssh 'exit 0'
does s4 'exit 0'
echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE1xUWUUX4pFtIqBdBRvIEbB0h2Tw2QTsDBWjAQCBgkH test' >"$work/key.pub"
export PATH=$work/bin:$tools/bin:$PATH HOME=$work/home AWS_ENDPOINT_URL=http://127.0.0.1:$port AWS_DEFAULT_REGION=us-east-1 \
    AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_EC2_METADATA_DISABLED=true AWS_PAGER="" public_key=$work/key.pub
ec2() { aws ec2 --output text "$@"; }
for _ in $(seq 100); do ec2 describe-vpcs >/dev/null 2>&1 && break; sleep 0.2; done
ami=$(ec2 describe-images --query 'Images[0].ImageId')
export ami
state() { # instances that run, groups, key pairs
    ec2 describe-instances --filters Name=tag:s4-cluster,Values=one Name=instance-state-name,Values=pending,running \
        --query 'length(Reservations[].Instances[])'
    ec2 describe-security-groups --filters Name=tag:s4-cluster,Values=one --query 'length(SecurityGroups)'
    ec2 describe-key-pairs --query 'length(KeyPairs)'
}
counts() { state | paste -sd ' '; }
run() { # run STATUS COMMAND...
    local wanted=$1 status=0
    shift
    : >"$work/calls"
    "$@" >"$work/output" 2>&1 </dev/null || status=$?
    same "the status of $*" "$wanted" "$status"
}

new() { env type=m5d.large num=4 patience=1 "$@" scripts/new_cluster.sh one; }
run 0 new
same "instances, groups, keys" "4 1 1" "$(counts)"
same "type and tags" "m5d.large 4" "$(ec2 describe-instances --filters Name=tag:Name,Values=s4-one \
    --query 'Reservations[].Instances[].InstanceType' | tr '\t' '\n' | sort | uniq -c | awk '{ print $2, $1 }')"
same "the hosts" 4 "$(grep -cE '^admin@[0-9.]+ [0-9.]+$' "$HOME/.s4-one.conf.ec2")"
same "the call of s4" "s4 -c $HOME/.s4-one.conf cluster up -o StrictHostKeyChecking=accept-new -o ConnectTimeout=5 $HOME/.s4-one.conf.ec2" \
    "$(grep ^s4 "$work/calls")"
same "ssh waits for each" 4 "$(grep -c 'test -e /run/s4-ready' "$work/calls")"
same "how to use it" 2 "$(grep -c '^export S4_CONF_PATH=\|^eval ' "$work/output")"
id=$(ec2 describe-instances --filters Name=tag:s4-cluster,Values=one --query 'Reservations[0].Instances[0].InstanceId')
ec2 describe-instance-attribute --instance-id "$id" --attribute userData --query UserData.Value | base64 -d >"$work/user-data"
same "the time to live" 1 "$(grep -c 'shutdown -h +60' "$work/user-data")"
same "the end of an instance" terminate "$(ec2 describe-instance-attribute --instance-id "$id" \
    --attribute instanceInitiatedShutdownBehavior --query InstanceInitiatedShutdownBehavior.Value)"
if command -v cloud-init >/dev/null; then
    run 0 cloud-init schema --config-file "$work/user-data"
else
    echo "skipped: the user data is not checked: no cloud-init here"
fi
group=$(ec2 describe-security-groups --filters Name=tag:s4-cluster,Values=one --query 'SecurityGroups[0].GroupId')
same "from outside, ssh alone" 22 "$(ec2 describe-security-groups --group-ids "$group" \
    --query 'SecurityGroups[0].IpPermissions[?length(IpRanges) > `0`].FromPort')"

before=$(ec2 describe-instances --query 'Reservations[].Instances[].InstanceId' | tr '\t' '\n' | sort)
run 0 new
same "again: the same instances" "$before" "$(ec2 describe-instances --query 'Reservations[].Instances[].InstanceId' | tr '\t' '\n' | sort)"
run 1 new num=5
same "another number is refused" "4 1 1" "$(counts)"
does s4 'exit 1'
run 1 new
same "a failure takes away nothing that was there before" "4 1 1" "$(counts)"
does s4 'exit 0'
run 0 scripts/update_cluster.sh one
same "update" "up upgrade" "$(grep ^s4 "$work/calls" | awk '{ print $5 }' | paste -sd ' ')"
run 0 scripts/delete_cluster.sh one
same "deleted" "0 0 0" "$(counts)"
same "the hosts are deleted" 0 "$(find "$HOME" -name '.s4-one*' | wc -l)"
run 0 scripts/delete_cluster.sh one
run 1 scripts/update_cluster.sh one

for failure in 's4 exit 1' 'ssh exit 255'; do
    does "${failure%% *}" "${failure#* }"
    run 1 new
    same "after a failure of ${failure%% *}, nothing is left" "0 0 0" "$(counts)"
    does "${failure%% *}" 'exit 0'
done
run 1 new subnet=subnet-00000000000000000
same "with a subnet that is not there, nothing is left" "0 0 0" "$(counts)"
does s4 'exit 1'
run 1 new keep=1
same "what is to be kept" "4 1 1" "$(counts)"
run 0 scripts/delete_cluster.sh one
run 2 scripts/new_cluster.sh 'no name'
# Without an answer of EC2, nothing is taken for absent.
run 255 env AWS_ENDPOINT_URL=http://127.0.0.1:1 AWS_MAX_ATTEMPTS=1 scripts/new_cluster.sh one
echo "ec2-test: $checks checks passed"
