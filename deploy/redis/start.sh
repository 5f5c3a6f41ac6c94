#!/bin/sh
# Starts the Redis of docker-compose.yml: under the ACL, with the password of feature_service that lies in /passwords and
# those of the other users in the data folder, where they stay.
set -eu
mkdir -p /data/users
# -f: a copy of before may not be written to.
cp -f /passwords/feature_service-password /data/users/feature_service-password
"$(dirname "$0")/make_users.sh" /data/users
exec redis-server --appendonly yes --dir /data --aclfile /data/users/users.acl
