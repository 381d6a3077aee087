# shellcheck shell=bash
# The way in: `bash env.bash demo`, `bash env.bash test`, `source env.bash`.
#
# Sourced, it only exports what docker-compose.yaml reads, and puts .venv/bin on PATH when it exists:
#   MNGR_VER, TAG     this checkout's version, and the tag of the images built from it
#   USR_NAME          whom the managers run as inside the images: you, or whoever it names already
#   USR_ID, GRP_ID    the ids of that user, so that files written inside belong to the right one
#   LSST_VER          used only for an endpoint image on an LSST stack base
# USR_NAME and LSST_VER keep a value that they have. The images' user has a variable of its own, so
# that $USER, which your login shell and its programs read, stays what it was.

# shellcheck disable=SC2128 # the first element is meant, and zsh would not know BASH_SOURCE[0]
_dbb_self=${BASH_SOURCE:-$0}
_dbb_root=$(CDPATH='' cd -- "$(dirname -- "$_dbb_self")" && pwd) || _dbb_root=$PWD

MNGR_VER=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$_dbb_root/common/__init__.py") || :
TAG=$MNGR_VER
USR_NAME=${USR_NAME:-$(id -un)} || :
USR_ID=$(id -u "$USR_NAME") || :
GRP_ID=$(id -g "$USR_NAME") || :
LSST_VER=${LSST_VER:-w_latest}
export MNGR_VER TAG USR_NAME USR_ID GRP_ID LSST_VER

case ":$PATH:" in
    *":$_dbb_root/.venv/bin:"*) ;;
    *) [ ! -d "$_dbb_root/.venv/bin" ] || export PATH="$_dbb_root/.venv/bin:$PATH" ;;
esac

# Executed, the shell was called with this very file. A sourced file's name is told by bash in
# BASH_SOURCE, by zsh in $0 (what zsh itself was called with is in ZSH_ARGZERO), by dash not at all.
if [ "$_dbb_self" != "${ZSH_ARGZERO:-$0}" ] || [ "${_dbb_self##*/}" != env.bash ]; then
    unset _dbb_self _dbb_root
    return 0
fi

[ -n "${BASH_VERSION:-}" ] || exec bash "$_dbb_self" "$@" # called as `sh env.bash demo`
set -euo pipefail
cd -- "$_dbb_root"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # sshd lies there, and ordinary users do not look there

usage() {
    cat <<'END'
Usage: bash env.bash demo [--butler] carry a night of images between two sites on this machine
       bash env.bash test [ARG…]     run the test suite; arguments go to pytest
       source env.bash               export what docker-compose.yaml reads

demo and test install what they need: system programs with apt-get, Python packages into .venv.
END
}

say() { printf 'env.bash: %s\n' "$1" >&2; }

give_up() {
    say "$1"
    shift
    [ $# = 0 ] || printf '    %s\n' "$@" >&2
    exit 1
}

# Programs that a command needs, each with the Debian package that brings it.
programs() {
    printf '%s\n' 'ssh openssh-client' 'ssh-keygen openssh-client' 'scp openssh-client' \
        'sshd openssh-server' 'rsync rsync' 'sqlite3 sqlite3'
    [ "$1" = demo ] || printf '%s\n' 'buildah buildah' 'busybox busybox' 'csh csh' 'debootstrap debootstrap' \
        'docker-compose docker-compose' 'fish fish' 'openssl openssl' 'systemd-analyze systemd' \
        'tmux tmux' 'zsh zsh'
}

# Whether an interpreter is new enough, and has the modules that are named after it.
python_fits() { "$1" -c "import sys${2:+, $2}; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1; }

# Prints the interpreter to make .venv with: one that can if there is one, else any new enough.
find_python() {
    local modules python
    for modules in 'venv, ensurepip' ''; do
        for python in python3 python3.14 python3.13 python3.12 python3.11 python; do
            if python_fits "$python" "$modules"; then
                echo "$python"
                return 0
            fi
        done
    done
    return 1
}

venv_works() { python_fits .venv/bin/python pip; }

# Prints "program package" for each program that is not there.
missing() {
    local program package python
    programs "$1" | while read -r program package; do
        command -v "$program" >/dev/null || echo "$program $package"
    done
    venv_works || {
        python=$(find_python) || python=''
        python_fits "$python" 'venv, ensurepip' || echo "Python≥3.11-with-venv $(python_package "$python")"
    }
}

# Prints the package of an interpreter's venv module; without one, that of the newest Python known here.
python_package() {
    if [ -n "$1" ]; then
        "$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
        return
    fi
    local minor
    for minor in 14 13 12 11; do
        if apt-cache show "python3.$minor-venv" >/dev/null 2>&1; then
            echo "python3.$minor-venv"
            return
        fi
    done
    echo python3-venv
}

names() { cut -d ' ' -f "$1" <<<"$2" | sort -u | paste -sd ' '; }

# Runs apt-get with its output in a log that is shown only when it fails.
apt_get() {
    local log
    log=$(mktemp)
    if "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=300 "$@" \
        </dev/null >"$log" 2>&1; then
        rm -f -- "$log"
    else
        tail -n 15 -- "$log" >&2
        rm -f -- "$log"
        return 1
    fi
}

# Installs the system programs that are missing, or says which they are and ends.
install_programs() {
    local lacking as_root=()
    lacking=$(missing "$1")
    [ -n "$lacking" ] || return 0
    command -v apt-get >/dev/null || give_up \
        "missing: $(names 1 "$lacking"). There is no apt-get here: install them in this system's own way, then try again."
    if [ "$(id -u)" != 0 ]; then
        as_root=(sudo -n)
        sudo -n true 2>/dev/null || give_up \
            "missing: $(names 1 "$lacking"). No right to install (not root, no sudo without a password). Give this command once, then try again:" \
            "sudo apt-get update && sudo apt-get install --no-install-recommends $(names 2 "$lacking")"
    fi
    say "missing: $(names 1 "$lacking")"
    say 'apt-get update'
    apt_get update || say 'the lists of packages could not all be renewed; going on with those that are there'
    lacking=$(missing "$1") # now that the lists are there, the right Python is known
    say "apt-get install $(names 2 "$lacking")"
    # shellcheck disable=SC2046 # package names are words
    apt_get install --no-install-recommends $(names 2 "$lacking") || give_up 'apt-get install failed'
    hash -r
    lacking=$(missing "$1")
    [ -z "$lacking" ] || give_up \
        "still missing: $(names 1 "$lacking"). This system's packages do not have it: install it in another way, then try again."
}

# Makes .venv and installs the project into it, unless that was done for this pyproject.toml, here.
# Takes `demo`, `butler` (a demo with Butler's packages) or `test`; each has what those before it have.
install_packages() {
    local stamp=.venv/$1.stamp state project=. groups=()
    state=$(printf '%s\n' "$_dbb_root" && cksum <pyproject.toml)
    if [ -x .venv/bin/python ] && [ "$(cat -- "$stamp" 2>/dev/null)" = "$state" ]; then
        return 0
    fi
    # The scripts of a .venv hold its place: one that was copied or moved is made anew.
    if ! venv_works || { [ -e "$stamp" ] && [ "$(head -n 1 -- "$stamp")" != "$_dbb_root" ]; }; then
        local python
        python=$(find_python)
        say "making .venv with $("$python" --version)"
        "$python" -m venv --clear .venv
    fi
    [ "$1" = demo ] || project='.[butler]'
    [ "$1" != test ] || groups=(--group test --group lint)
    say 'installing Python packages into .venv'
    # Older ones do not know --group.
    if ! .venv/bin/python -m pip install -qq --upgrade 'pip>=25.1' ||
        ! .venv/bin/python -m pip install -qq --editable "$project" "${groups[@]}"; then
        give_up 'pip failed, as it says above; it needs pypi.org, or another index in its configuration'
    fi
    echo "$state" >"$stamp"
    # Who can test can show.
    [ "$1" = demo ] || cp -- "$stamp" .venv/demo.stamp
    [ "$1" != test ] || cp -- "$stamp" .venv/butler.stamp
}

command=${1:-}
case $command in
    demo | test) shift ;;
    *)
        usage >&2
        exit 2
        ;;
esac
packages=$command
if [ "$command" = demo ] && [[ " $* " == *' --butler '* ]]; then
    packages=butler
fi
install_programs "$command"
install_packages "$packages"
# pip compiles what it copies, but no checkout: where Python is told to write no files, each start would do it.
.venv/bin/python -m compileall -qq common endpoint handoff || true
PATH=$_dbb_root/.venv/bin:$PATH
if [ "$command" = demo ]; then
    exec .venv/bin/python -m tests.demo "$@"
fi
workers=$(($(nproc) + 1)) # tests wait for most of their time
exec .venv/bin/python -m pytest -n "$((workers < 4 ? workers : 4))" --dist loadgroup "$@"
