# Writes the files of one batch into its directory in staging, as they come on standard input, one after
# the other. (The text of visit.sh comes before this.)
#
# Defined by the caller: staging, batch, modes (permission bits, in octal), and the lists directories
# (outer ones first), files (three words each: size in bytes, time, name), and for each of the modes,
# named mode_<bits>, the files that get it. Names begin with "./".

# So many bytes of standard input, and not one more.
take() {
  begun=yes
  if [ "$copier" = dd ]; then
    # As large as what ssh brings at once: larger ones have been read from memory that is no longer near.
    dd bs=32768 count="$1" iflag=count_bytes,fullblock status=none
  else
    head -c "$1"
  fi
}

# That a file has not got its time is no reason not to look at what it holds.
receive() {
  begun=
  if take "$1" >"$3"; then
    touch -d "@$2" -- "$3" || damaged=yes
  elif [ -z "$begun" ]; then
    # Its name could not be had; those of the others can.
    damaged=yes
    take "$1" >/dev/null
  else
    # How much of it is still to come can't be known, so nothing that follows can be told apart.
    say broken
    say end
    exit 0
  fi
}

set_modes() {
  for mode in $modes; do
    "mode_$mode" nul | xargs -0 -r chmod -- "$mode" || damaged=yes
  done
}

stream() {
  define
  damaged=
  copier='dd'
  # Of coreutils before 8.20, dd knows less.
  dd count=0 iflag=count_bytes,fullblock status=none </dev/null >/dev/null 2>&1 || copier='head'
  cd "$staging" 2>/dev/null || fail staging "$(stat -- "$staging/." 2>&1)"
  why=$(mkdir -p -- "$batch" 2>&1) || fail staging "$why"
  cd "$batch" || fail staging 'no right to enter the directory of the batch'
  directories nul | xargs -0 -r mkdir -p -- || damaged=yes
  files receive
  read -r last
  [ "$last" = end ] || fail input 'the input of the visit ended early'
  set_modes
  [ -z "$damaged" ] || say damaged
  say end
}

stream
