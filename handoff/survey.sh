# Looks around at the endpoint: what there is to work with, room, rights, the clock; makes the
# directories; and clears away what batches of ours have left in staging, never anything else. (The
# text of visit.sh comes before this.)
#
# Defined by the caller: staging, buffer, looking (nothing at all is made or changed), making (are these
# two made), owner, clearing (clear away all batches of ours but `keep`), aged (of them only the old
# ones), recording (are there recorded receipts), passing (receipts to be passed over), receipts_most,
# receipts_bytes; and the lists keep, leftovers (batches to be cleared away in any case), recorded.

# The first line of what a program says of itself, if it is there.
tell_program() {
  if command -v "$1" >/dev/null 2>&1; then
    text=$("$@" </dev/null 2>/dev/null)
    say "program $1 ${text%%"$newline"*}"
  fi
}

tell_programs() {
  for program in cat chmod cp cut find head ln mkdir mv nproc rm sleep sort stat sync xargs; do
    command -v "$program" >/dev/null 2>&1 || say "lacks $program"
  done
  tell_program tar --version
  tell_program rsync --version
  if [ "$looking" = yes ]; then
    tell_program stat --version
    tell_program find --version
    tell_program sha256sum --version
    tell_program b2sum --version
    tell_program openssl version
  fi
  # What is there and what works are two things.
  say "digest openssl $(printf dbb | openssl dgst -sha256 -r 2>/dev/null)"
  say "digest sha256sum $(printf dbb | sha256sum 2>/dev/null)"
  say "digest b2sum $(printf dbb | b2sum 2>/dev/null)"
}

# $1 is what the first of the other directories is called; they are made, but that one only if it may be.
tell_directory() {
  label=$1
  shift
  text=$(
    {
      { [ "$making" = yes ] || stat -- "$1/." >/dev/null; } && mkdir -p -- "$@" && stat -- "$1/." >/dev/null
    } 2>&1
  ) || {
    say "unusable $label $text"
    return
  }
  tell_place "$label" "$1"
}

tell_place() {
  say "device $1 $(stat -c %d -- "$2/.")"
  physical=$(cd "$2" && pwd -P && echo .)
  say "physical $1 ${physical%"$newline".}"
  if [ -w "$2" ] && [ -x "$2" ]; then
    say "writable $1"
  fi
  space "$1" "$2"
}

# The same without making anything: of what is missing, the place is told in which it would be made.
look_at_directory() {
  label=$1
  place=$2
  if ! text=$(stat -- "$place/." 2>&1 >/dev/null); then
    case $text in
      *'No such file or directory') [ -L "$place" ] || say "missing $label" ;;
    esac
    if [ -L "$place" ] || [ "$text" = "${text%No such file or directory}" ]; then
      say "unusable $label $text"
      return
    fi
    while [ ! -e "$place" ]; do
      place=${place%/*}
      place=${place:-/}
    done
  fi
  shift 2
  for directory do
    if [ -e "$directory" ] && { [ ! -d "$directory" ] || [ ! -w "$directory" ] || [ ! -x "$directory" ]; }; then
      say "unusable $label $directory: Permission denied"
      return
    fi
  done
  tell_place "$label" "$place"
}

# What `place` will do, on a file of ours inside staging.
rehearse() {
  # (cat writes, for it says what is wrong; dash's own printf calls every trouble an I/O error.)
  [ -d "$staging/.notes" ] || return
  rehearsal=$staging/.notes/.rehearsal-$owner-$$
  text=$(
    {
      mkdir -p -- "$rehearsal/from" "$rehearsal/to" &&
        printf dbb | cat >"$rehearsal/from/file" &&
        cd "$rehearsal/from" &&
        cp -rln ./. "$rehearsal/to/"
    } 2>&1
  )
  written=
  [ ! -s "$rehearsal/from/file" ] || written=yes
  linked=$(find "$rehearsal/to" -type f -links +1 -printf x 2>/dev/null)
  # Before anything is said: where nobody is listening any more, that is the end.
  remove "$rehearsal"
  [ -z "$written" ] || say written
  [ "$linked" != x ] || say linked
  say "rehearsed $text"
}

clear_leftovers() {
  cd "$staging" 2>/dev/null || return
  for name do
    [ ! -e "$name" ] || say "cleared $name"
    remove "./$name"
    rm -f -- ".notes/.$name.tmp"
  done
}

clear_all_but() {
  cd "$staging" 2>/dev/null || return
  for name do
    shift
    set -- "$@" ! -name "$name" ! -name ".$name.tmp"
  done
  [ "$aged" = no ] || set -- "$@" -mmin +10
  find . -mindepth 1 -maxdepth 1 -name "batch-$owner-*" "$@" -printf 'cleared %f\0' -exec rm -rf -- {} + 2>/dev/null || {
    find . -mindepth 1 -maxdepth 1 -name "batch-$owner-*" "$@" -type d -exec chmod -R u+rwx -- {} +
    find . -mindepth 1 -maxdepth 1 -name "batch-$owner-*" "$@" -exec rm -rf -- {} +
  } 2>/dev/null
  # Another worker may be rehearsing just now.
  find .notes -mindepth 1 -maxdepth 1 \( -name ".batch-$owner-*.tmp" "$@" \
    -o -name ".rehearsal-$owner-*" -mmin +60 \) -exec rm -rf -- {} +
}

visit() {
  say "clock $(date +%s.%N)"
  mark clock
  tidy_path
  # Beside the rest: most of a survey's time goes by with starting one program after the other. (A record
  # of less than 4 kB is written whole, so that theirs and ours do not mix.)
  tell_programs &
  if [ "$looking" = yes ]; then
    say looked
    look_at_directory staging "$staging" "$staging/.notes" "$staging/.receipts"
    look_at_directory buffer "$buffer"
  else
    tell_directory staging "$staging" "$staging/.notes" "$staging/.receipts"
    tell_directory buffer "$buffer"
    rehearse
  fi
  wait
  say "mounts $(cat /proc/self/mountinfo 2>/dev/null)"
  start_ticking
  leftovers clear_leftovers
  [ "$clearing" = no ] || keep clear_all_but
  mark end
  finish
}

visit
