#!/bin/sh
# What a container of ours begins with; and, by their names, `hdfmgr` and `endmgr` inside it.
#
# It begins as root, to give the managers' account the name and ids that they have on the host (USR_NAME,
# USR_ID, GRP_ID) and to copy the ssh keys that are mounted at DBB_SSH, where there is such a thing. Whatever
# the container runs then, also by `docker exec`, is run by that account. Begun as another user, it makes do.
set -eu
home=/home/dbb
name=${0##*/}

# tell MESSAGE HINT...
tell() {
    printf 'entrypoint: %s\n' "$1" >&2
    shift
    [ $# = 0 ] || printf '    %s\n' "$@" >&2
}

give_up() {
    tell "$@"
    exit 10 # as for a configuration that can't be used
}

is_root() { [ "$(id -u)" = 0 ]; }

# Goes on as the managers' account.
become() {
    [ "$USR_ID" != 0 ] || exec "$@"
    exec setpriv --reuid="$USR_ID" --regid="$GRP_ID" --clear-groups --no-new-privs -- "$@"
}

check_ids() {
    case ${USR_NAME:-:} in *:*) usable=no ;; *) usable=yes ;; esac
    case ${USR_ID:-x}${GRP_ID:-x} in *[!0-9]*) usable=no ;; esac
    [ $usable = yes ] || give_up 'USR_NAME, USR_ID and GRP_ID do not name an account of the host' \
        "give 'source env.bash' in the shell that calls docker-compose"
    [ "$USR_ID" != 0 ] || tell 'the manager will run as root, for USR_ID is 0' \
        "to run it as another account of the host: export USR_NAME=NAME, then 'source env.bash'"
}

# The first line of a name or an id counts. ssh finds there where keys are, and as whom to log in.
map_ids() {
    others=$(grep -v ':of the host:' /etc/passwd)
    printf '%s\n' "$USR_NAME:x:$USR_ID:$GRP_ID:of the host:$home:/bin/sh" "$others" >/etc/passwd
    chown "$USR_ID:$GRP_ID" "$home"
}

# What ssh wants to be the account's alone is mounted with the owner and mode that it has on the host.
copy_keys() {
    rm -rf "$home/.ssh"
    mkdir -m 700 "$home/.ssh"
    for file in "$DBB_SSH"/*; do
        [ -f "$file" ] || continue
        owner=$(stat -L -c %u "$file")
        if ! cp -- "$file" "$home/.ssh/" 2>/dev/null; then
            tell "$file can't be read: it belongs to the user id $owner, and not to $USR_ID" \
                "on the host, give 'chown $USR_ID:$GRP_ID ${file##*/}', then start the container again"
        elif [ "$owner" != "$USR_ID" ] && grep -q 'PRIVATE KEY' "$file"; then
            tell "$file belongs to the user id $owner, and not to $USR_ID; its copy inside is put right" \
                "to have it right on the host as well: chown $USR_ID:$GRP_ID ${file##*/}"
        fi
    done
    chmod -R go=,u=rwX "$home/.ssh"
    ! is_root || chown -R "$USR_ID:$GRP_ID" "$home/.ssh"
}

require_host_key() {
    [ -s "$home/.ssh/known_hosts" ] || give_up \
        "no host key is known, so that nobody who answers can be trusted: $DBB_SSH/known_hosts is missing or empty" \
        "on the host, in the directory that is mounted there: ssh-keyscan -p PORT ENDPOINT >known_hosts" \
        "compare 'ssh-keygen -lf known_hosts' with what 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' says at the endpoint" \
        "then start the container again"
}

case $name in
    hdfmgr | endmgr)
        case $name in hdfmgr) module=handoff ;; *) module=endpoint ;; esac
        set -- /opt/dbb/bin/python -m "$module" "$@"
        ! is_root || become "$@"
        exec "$@"
        ;;
esac

if is_root; then
    check_ids
    map_ids
else
    getent passwd "$(id -u)" >/dev/null || give_up "there is no account of the id $(id -u) inside, and ssh wants one" \
        'start the container as root, which it is for a moment only, with USR_NAME, USR_ID and GRP_ID'
    USR_ID=$(id -u) GRP_ID=$(id -g)
fi
[ -z "${DBB_SSH:-}" ] || copy_keys
case "${1:-} ${2:-}" in
    'hdfmgr start' | 'hdfmgr run' | 'endmgr start' | 'endmgr run')
        [ -z "${DBB_SSH:-}" ] || require_host_key
        for config; do :; done
        ln -sfn -- "$config" "$home/running" # for the health check
        ;;
esac
# It reaps what ssh leaves, and passes signals on; an LSST stack's image lacks it, and runs no ssh.
! command -v tini >/dev/null || set -- tini -s -- "$@"
! is_root || become "$@"
exec "$@"
