#!/bin/sh
# Starts the endpoint manager with a configuration of the OODS, and its messages in a file. It may be copied anywhere.

script=${0##*/}
log=/var/log/oods.log

usage() {
    echo "Usage: $script [-h] [-l LOG] CONFIG"
    echo
    echo "Run the endpoint manager with CONFIG, a configuration of the OODS or of endmgr, until it is stopped."
    echo
    echo "  -l LOG  append its messages to LOG instead of $log"
    echo "  -h      print this help"
}

# fail CODE MESSAGE HINT
fail() {
    printf '%s: %s\n  %s\n' "$script" "$2" "$3" >&2
    exit "$1"
}

while getopts ':hl:' option; do
    case $option in
        h) usage; exit 0 ;;
        l) log=$OPTARG ;;
        :) fail 2 "-$OPTARG needs a file" "$script -h prints how it is used" ;;
        *) fail 2 "there is no option -$OPTARG" "$script -h prints how it is used" ;;
    esac
done
shift $((OPTIND - 1))
[ $# -eq 1 ] || fail 2 'name one configuration' "$script -h prints how it is used"

command -v endmgr >/dev/null 2>&1 ||
    fail 127 'endmgr is not on PATH' 'install dbb-buffer-managers, or add the directory of its commands to PATH'

# What is wrong with the configuration is told here, where somebody sees it.
endmgr validate -- "$1" >/dev/null || exit

# In a shell of its own, which may die of it.
(: >>"$log") 2>/dev/null ||
    fail 1 "$log can't be written" "name a file that this user may write: $script -l LOG $1"

exec endmgr start -- "$1" >>"$log" 2>&1
