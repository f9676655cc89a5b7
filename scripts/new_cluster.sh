#!/usr/bin/env bash
# Makes a cluster on EC2, or brings up the one of that name: instances with their instance store formatted and mounted, then
# `s4 cluster up`. Prints how to use it. What a run has made, it takes away again if it fails.
#
#   type=i3en.xlarge num=12 scripts/new_cluster.sh NAME
#
# Variables, with their defaults:
#   type=i3en.xlarge  num=3  spot=      any value: spot instances
#   timeout=3600      seconds after which the instances end by themselves; 0: never
#   ami=              an image; Debian 12 for the type's architecture
#   subnet=           one of the default VPC
#   from=0.0.0.0/0    where ssh may come from; the nodes' ports are open to the nodes alone
#   key=              a key pair of EC2; else the public key in public_key=~/.ssh/id_ed25519.pub
#   identity=         the private key for ssh, if it is not the usual one
#   user=admin        whom ssh logs in; root by sudo
#   profile=          an instance profile, whose role the commands have, for S3
#   conf=~/.s4-NAME.conf   where the cluster file is kept
#   keep=             any value: a failed cluster is left, to be looked at
# Credentials and region are those of the aws command.
# shellcheck source=scripts/ec2.sh
. "$(dirname "$0")/ec2.sh"
type=${type:-i3en.xlarge}
num=${num:-3}
timeout=${timeout:-3600}
[[ $num =~ ^[1-9][0-9]{0,3}$ ]] || die "num=$num: a number of instances"
[[ $timeout =~ ^[0-9]{1,9}$ ]] || die "timeout=$timeout: seconds, or 0"

image() {
    local arch
    arch=$(ec2 describe-instance-types --instance-types "$type" --query 'InstanceTypes[0].ProcessorInfo.SupportedArchitectures[0]')
    # The account of Debian's images.
    ec2 describe-images --owners 136693071363 --filters "Name=name,Values=debian-12-${arch/x86_64/amd64}-*" \
        --query 'sort_by(Images, &CreationDate)[-1].ImageId'
}

make_group() {
    local vpc id
    if [ -n "${subnet:-}" ]; then
        vpc=$(ec2 describe-subnets --subnet-ids "$subnet" --query 'Subnets[0].VpcId')
    else
        vpc=$(ec2 describe-vpcs --filters Name=is-default,Values=true --query 'Vpcs[0].VpcId')
    fi
    [ "$vpc" != None ] || die "no default VPC here: subnet=ID says where"
    id=$(ec2 create-security-group --group-name "$group" --description "s4 cluster $name" --vpc-id "$vpc" \
        --tag-specifications "ResourceType=security-group,Tags=[{Key=$tag,Value=$name}]" --query GroupId)
    ec2 authorize-security-group-ingress --group-id "$id" --protocol tcp --port 22 --cidr "${from:-0.0.0.0/0}" >/dev/null
    ec2 authorize-security-group-ingress --group-id "$id" --protocol all --source-group "$id" >/dev/null
    echo "$id"
}

make_instances() {
    local id key_name=${key:-$group} public=${public_key:-$HOME/.ssh/id_ed25519.pub} options=() minutes=$(((timeout + 59) / 60))
    ami=${ami:-$(image)}
    [ "$ami" != None ] || die "no image of Debian for $type here: ami=ID says which"
    if [ -z "${key:-}" ]; then
        [ -r "$public" ] || die "$public: no public key: ssh-keygen -t ed25519, or public_key=FILE, or key=NAME"
        ec2 import-key-pair --key-name "$group" --public-key-material "fileb://$public" >/dev/null
    fi
    id=$(make_group)
    [ -z "${subnet:-}" ] || options+=(--subnet-id "$subnet")
    [ -z "${profile:-}" ] || options+=(--iam-instance-profile "Name=$profile")
    [ -z "${spot:-}" ] || options+=(--instance-market-options MarketType=spot)
    ec2 run-instances --image-id "$ami" --instance-type "$type" --count "$num" --key-name "$key_name" --security-group-ids "$id" \
        --user-data "$(sed "s/\\bMINUTES\\b/$minutes/g" "$here/../packaging/ec2/user-data.yaml")" \
        --instance-initiated-shutdown-behavior terminate "${options[@]}" \
        --tag-specifications "ResourceType=instance,Tags=[{Key=$tag,Value=$name},{Key=Name,Value=s4-$name}]" >/dev/null
}

find_instances
case ${#ids[@]} in
"$num") say "$num instances are there" ;;
0)
    [ -n "${keep:-}" ] || trap '[ $? = 0 ] || { trap - EXIT; say "failed: taking away what was made"; remove; exit 1; }' EXIT
    # What a run left that could not clean up.
    remove
    say "making $num of $type"
    make_instances
    find_instances
    ;;
*) die "$name has ${#ids[@]} instances, and $num are asked for: scripts/delete_cluster.sh $name first" ;;
esac
ec2 wait instance-running --instance-ids "${ids[@]}"
write_hosts
wait_ready
cluster up "$hosts"
show_use
