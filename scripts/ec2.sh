# shellcheck shell=bash
# What the scripts for clusters on EC2 share; each sources this file. Everything of a cluster has the tag s4-cluster=NAME.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
me=${0##*/}
if [ $# != 1 ] || ! [[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9-]{0,62}$ ]]; then
    echo "usage: $me NAME (letters, digits and -)" >&2
    exit 2
fi
name=$1
readonly tag=s4-cluster group=s4-$name
user=${user:-admin}
conf=${conf:-$HOME/.s4-$name.conf}
hosts=$conf.ec2
ssh_options=(-o StrictHostKeyChecking=accept-new -o ConnectTimeout=5)
[ -z "${identity:-}" ] || ssh_options+=(-o "IdentityFile=$identity")

say() { printf '%s: %s\n' "$me" "$*" >&2; }
die() { say "$*"; exit 1; }
ec2() { aws ec2 --output text "$@"; }

command -v aws >/dev/null || die "no aws command: see the AWS CLI"

find_instances() { # find_instances [STATE,...]: ids of instances of the cluster, in the array ids
    local found
    # Not in <(...): a failure must end the script.
    found=$(ec2 describe-instances --filters "Name=tag:$tag,Values=$name" "Name=instance-state-name,Values=${1:-pending,running}" \
        --query 'Reservations[].Instances[].InstanceId')
    read -ra ids <<<"${found//$'\n'/ }"
}

remove() { # ends the instances and takes away all else, as far as it is there
    local ids id groups
    find_instances pending,running,stopping,stopped,shutting-down
    if [ "${#ids[@]}" -gt 0 ]; then
        say "ending ${#ids[@]} instances"
        ec2 terminate-instances --instance-ids "${ids[@]}" >/dev/null
        ec2 wait instance-terminated --instance-ids "${ids[@]}"
    fi
    groups=$(ec2 describe-security-groups --filters "Name=tag:$tag,Values=$name" --query 'SecurityGroups[].GroupId')
    for id in $groups; do ec2 delete-security-group --group-id "$id" >/dev/null; done
    # It is no error if there is none.
    ec2 delete-key-pair --key-name "$group" >/dev/null
    rm -f "$hosts"
}

write_hosts() { # for s4 cluster up: how ssh calls each, and the address that the others use
    local table
    table=$(ec2 describe-instances --filters "Name=tag:$tag,Values=$name" Name=instance-state-name,Values=running \
        --query 'Reservations[].Instances[].[AmiLaunchIndex,PublicIpAddress,PrivateIpAddress]' | sort -n)
    awk -v user="$user" '{ print user "@" ($2 == "None" ? $3 : $2), $3 }' <<<"$table" >"$hosts"
}

wait_ready() { # until each has its disk
    local host deadline=$((SECONDS + ${patience:-600}))
    while read -r host _; do
        say "waiting for $host"
        until ssh "${ssh_options[@]}" -o BatchMode=yes "$host" test -e /run/s4-ready </dev/null 2>/dev/null; do
            [ "$SECONDS" -lt "$deadline" ] || die "$host is not ready: ssh ${ssh_options[*]} $host cat /var/log/cloud-init-output.log"
            sleep 2
        done
    done <"$hosts"
}

cluster() { # cluster COMMAND...: of s4 cluster
    local command=$1
    shift
    "${S4:-s4}" -c "$conf" cluster "$command" "${ssh_options[@]}" "$@"
}

show_use() {
    local first
    first=$(awk 'NR == 1 { print $1 }' "$hosts")
    cat <<END
export S4_CONF_PATH=$conf
eval "\$($here/connect_to_cluster.sh ${ssh_options[*]} $first)"
END
}
