# Looks around at the endpoint: what there is to work with, room, rights, the clock; makes the
# directories; and clears away what batches of ours have left in staging, never anything else. (The
# text of visit.sh comes before this.)
#
# Defined by the caller: staging, buffer, making (are these two made), owner, clearing (clear away all
# batches of ours but `keep`), recording (are there recorded receipts), passing (receipts to be passed
# over), receipts_most, receipts_bytes; and the lists keep, leftovers (batches to be cleared away in any
# case), recorded.

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
  tell_program stat --version
  tell_program find --version
  tell_program sha256sum --version
  tell_program b2sum --version
  tell_program openssl version
  tell_program rsync --version
  # What is there and what works are two things.
  say "digest openssl $(printf dbb | openssl dgst -sha256 -r 2>/dev/null)"
  say "digest sha256sum $(printf dbb | sha256sum 2>/dev/null)"
  say "digest b2sum $(printf dbb | b2sum 2>/dev/null)"
  say "processors $(nproc 2>/dev/null)"
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
  say "device $label $(stat -c %d -- "$1/.")"
  physical=$(cd "$1" && pwd -P && echo .)
  say "physical $label ${physical%"$newline".}"
  if [ -w "$1" ] && [ -x "$1" ]; then
    say "writable $label"
  fi
  space "$label" "$1"
}

# What `place` will do, on a file of ours inside staging.
rehearse() {
  [ -d "$staging/.notes" ] || return
  rehearsal=$staging/.notes/.rehearsal-$owner-$$
  text=$(
    {
      mkdir -p -- "$rehearsal/from" "$rehearsal/to" &&
        printf dbb >"$rehearsal/from/file" &&
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
  find . -mindepth 1 -maxdepth 1 -name "batch-$owner-*" "$@" -printf 'cleared %f\0'
  find . -mindepth 1 -maxdepth 1 -name "batch-$owner-*" "$@" -exec rm -rf -- {} + 2>/dev/null || {
    find . -mindepth 1 -maxdepth 1 -name "batch-$owner-*" "$@" -type d -exec chmod -R u+rwx -- {} +
    find . -mindepth 1 -maxdepth 1 -name "batch-$owner-*" "$@" -exec rm -rf -- {} +
  } 2>/dev/null
  find .notes -mindepth 1 -maxdepth 1 -name ".batch-$owner-*.tmp" "$@" -exec rm -f -- {} +
  # Another worker may be rehearsing just now.
  find .notes -mindepth 1 -maxdepth 1 -name ".rehearsal-$owner-*" -mmin +60 -exec rm -rf -- {} +
}

visit() {
  say "clock $(date +%s.%N)"
  mark clock
  define
  tell_programs
  tell_directory staging "$staging" "$staging/.notes" "$staging/.receipts"
  tell_directory buffer "$buffer"
  say "mounts $(cat /proc/self/mountinfo 2>/dev/null)"
  rehearse
  start_ticking
  leftovers clear_leftovers
  [ "$clearing" = no ] || keep clear_all_but
  mark end
  finish
}

visit
