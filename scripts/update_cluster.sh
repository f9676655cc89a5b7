#!/usr/bin/env bash
# Brings a cluster on EC2 to what is here: its instances' addresses, and the programs.
#
#   scripts/update_cluster.sh NAME
#
# Variables: user, identity and conf of scripts/new_cluster.sh.
# shellcheck source=scripts/ec2.sh
. "$(dirname "$0")/ec2.sh"
find_instances
[ "${#ids[@]}" -gt 0 ] || die "$name has no instances: scripts/new_cluster.sh $name"
ec2 wait instance-running --instance-ids "${ids[@]}"
write_hosts
wait_ready
cluster up "$hosts"
cluster upgrade
show_use
