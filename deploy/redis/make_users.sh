#!/bin/sh
# Makes what a Redis of ours asks its callers for. Needs a POSIX shell and coreutils, nothing of ours.
#   make_users.sh FOLDER        made if absent: a password per user (USER-password), and users.acl, which holds their hashes only
#   make_users.sh FOLDER USER   the password of one user
# A password that is there is kept; to change one, see docs/security.md.
set -eu
folder=${1:?"which folder? make_users.sh FOLDER [USER]"}
mkdir -p "$folder"
make_password() {
    if [ ! -s "$folder/$1-password" ]; then
        (umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$folder/$1-password.new")
        mv "$folder/$1-password.new" "$folder/$1-password"
    fi
}
if [ $# -gt 1 ]; then
    make_password "$2"
    exit
fi
rules=$(cat "$(dirname "$0")/users.acl")
for user in feature_service replica maintenance operator; do
    make_password "$user"
    # As Redis hashes it: without the newline that an editor may have left.
    hash=$(tr -d '\r\n' < "$folder/$user-password" | sha256sum | cut -d ' ' -f 1)
    rules=$(printf '%s\n' "$rules" | sed "s/#<$user>/#$hash/")
done
printf '%s\n' "$rules" > "$folder/users.acl.new"
mv "$folder/users.acl.new" "$folder/users.acl"
