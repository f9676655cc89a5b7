#!/usr/bin/env bash
# Ends the instances of a cluster on EC2, and takes away its security group, key pair and files here. The keys are lost.
#
#   scripts/delete_cluster.sh NAME
# shellcheck source=scripts/ec2.sh
. "$(dirname "$0")/ec2.sh"
remove
rm -f "$conf" "$conf.secret" "$conf.hosts"
say "$name is gone"
