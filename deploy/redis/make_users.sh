#!/bin/sh
# Makes what a Redis of ours asks its callers for: make_users.sh FOLDER
# In FOLDER afterwards: a password per user (USER-password) and users.acl, which holds their hashes only. A password that
# is there is kept; to change one, see docs/security.md. Needs a POSIX shell and coreutils, nothing of ours.
set -eu
umask 022
folder=$1
rules=$(cat "$(dirname "$0")/users.acl")
for user in feature_service replica operator; do
    file=$folder/$user-password
    if [ ! -s "$file" ]; then
        head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$file.new"
        mv "$file.new" "$file"
    fi
    # As Redis hashes it: without the newline that an editor may have left.
    hash=$(tr -d '\r\n' < "$file" | sha256sum | cut -d ' ' -f 1)
    rules=$(printf '%s\n' "$rules" | sed "s/#<$user>/#$hash/")
done
printf '%s\n' "$rules" > "$folder/users.acl.new"
mv "$folder/users.acl.new" "$folder/users.acl"
