# The beginning of every script that runs at the endpoint: for any POSIX shell, GNU coreutils, findutils.
#
# Behind it comes what a visit is about, as definitions. A definition is a variable, or a list: a function
# that calls a command with the list's items, so that they are never split, and printed by no program
# started for it. Then comes the script itself, to which standard input belongs. The answer is records
# that end with NUL, each a word and its value. All work is in functions, and the last line of a script
# calls one: of a script that arrives cut short nothing runs.

set -u +e +f +C
LC_ALL=C
export LC_ALL
unset IFS CDPATH POSIXLY_CORRECT
newline='
'

# bash takes functions from the environment: one called `find` would be taken for the program.
for name in '[' b2sum cat cd chmod command cp cut date echo find head kill ln mkdir mv nproc openssl perl printf \
  pwd read rm rsync sh sha256sum sleep sort stat sync tar wait xargs; do
  unset -f "$name" 2>/dev/null
done

# Delivered files may be called like programs: of PATH, only what does not depend on where we are.
tidy_path() {
  tidy=
  set -f
  IFS=:
  for directory in ${PATH-}; do
    case $directory in
      /*) tidy=$tidy$directory: ;;
    esac
  done
  unset IFS
  set +f
  PATH=$tidy/usr/local/bin:/usr/bin:/bin
}

say() {
  printf '%s\0' "$*"
}

# Prints a list for `xargs -0`.
nul() {
  [ $# -eq 0 ] || printf '%s\0' "$@"
}

# How long the phases take: the kernel's uptime can be read without starting a program.
mark() {
  if read -r uptime _ 2>/dev/null </proc/uptime; then
    say "mark $1 $uptime"
  fi
}

# Something is wrong with the whole visit: what, and the end.
fail() {
  hush
  say "fail $1 $2"
  say end
  exit 0
}

# A sign of life every few seconds while a program works in silence. Only while no more than a few
# bytes at once are written, since longer records may be written in pieces.
ticker=
tick() {
  nap=
  trap '[ -z "$nap" ] || kill "$nap"; exit 0' TERM
  while :; do
    sleep 5 <&- >&- 2>&- &
    nap=$!
    wait "$nap"
    nap=
    say tick || exit 0
  done
}

start_ticking() {
  tick 2>/dev/null &
  ticker=$!
}

hush() {
  if [ -n "$ticker" ]; then
    kill "$ticker" 2>/dev/null
    wait "$ticker" 2>/dev/null
    ticker=
  fi
}
# sshd ends a session when the last process that could still write has gone.
trap hush EXIT

# Free space where the directory $2 lies, which is called $1.
space() {
  stat -f --printf "space $1 %S %b %a %c %d\0" -- "$2" 2>/dev/null
}

remove() {
  rm -rf -- "$1" 2>/dev/null && return
  # Directories may have come without the right to write in them. (A link would be followed.)
  [ -L "$1" ] || chmod -R u+rwx -- "$1"
  rm -rf -- "$1"
} 2>/dev/null

# Removes the receipts that have been recorded, and announces what else is there.
announce_receipts() {
  taken=
  cd "$staging/.receipts" 2>/dev/null || return
  [ "$recording" = no ] || recorded nul | xargs -0 -r rm -f --
  chosen=
  chosen_count=0
  for name in *.jsonl; do
    case $name in
      *[!A-Za-z0-9._-]* | -*) continue ;;
    esac
    case " $passing " in
      *" $name "*) continue ;;
    esac
    if [ -L "$name" ] || [ ! -f "$name" ]; then
      continue
    fi
    [ "$chosen_count" -lt "$receipts_most" ] || break
    chosen_count=$((chosen_count + 1))
    chosen="$chosen $name"
  done
  [ -n "$chosen" ] || return
  total=0
  # shellcheck disable=SC2046,SC2086 # plain names
  set -- $(stat -c '%s %n' -- $chosen 2>/dev/null)
  while [ $# -gt 1 ]; do
    total=$((total + $1))
    # One at least, however large, or it would stay for ever.
    [ "$total" -le "$receipts_bytes" ] || [ -z "$taken" ] || break
    say "receipt $1 $2"
    taken="$taken $2"
    shift 2
  done
}

# The end of a visit that has done all that it was for. The receipts' contents come last, so that one
# that changes meanwhile can't be taken for anything else.
finish() {
  hush
  announce_receipts
  say finished
  say end
  # shellcheck disable=SC2086 # plain names
  [ -z "$taken" ] || cat -- $taken
  exit 0
}
