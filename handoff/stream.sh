# Unpacks the archive of one batch, which follows on standard input, into the batch's directory in staging.
# (The text of visit.sh comes before this.)
#
# Defined by the caller: staging, batch (a name that begins with "./").

# Prints the number of tar's process, then what tar says, then how it ended.
unpack() {
  # Large records empty the pipe before their files are made: sshd has to keep less.
  sh -c 'echo $$ && exec tar "$@"' sh -x -f - -b 1024 -p --no-same-owner --warning=no-timestamp 2>&1
  echo "ended $?"
}

# Where there is no room, tar would go on to take what it can't write.
watch() {
  read -r process
  while read -r line; do
    case $line in
      'ended 0') return ;;
      # It could not be started.
      'ended 12'[67])
        say missing
        return
        ;;
      # HUP, INT, KILL, TERM, and not by us: the memory may be short.
      'ended 129' | 'ended 130' | 'ended 137' | 'ended 143')
        [ -z "$process" ] || {
          say killed
          return
        }
        continue
        ;;
      'ended '*) continue ;;
    esac
    [ -n "$process" ] || continue
    printf '%s\n' "$line" >&2
    # Names come first, and may hold the same words.
    case "${line##*: Cannot } $line" in
      'write: '* | *': Wrote only '[0-9]*' of '[0-9]*' bytes')
        kill "$process"
        process=
        ;;
    esac
  done
  # tar does not always say why: is there no room, or was that file too large?
  if [ -z "$process" ]; then
    head -c 65536 /dev/zero >".room-$$"
    rm -f ".room-$$"
  fi
  say damaged
}

# Enlarges the pipe that the archive comes through, where there is perl: what finds no place in it, sshd keeps
# in memory, which it copies each time that it becomes more. (F_SETPIPE_SZ of fcntl(2), to what anybody may.)
widen() {
  perl -e 'fcntl STDIN, 1031, 1 << 20'
} 2>/dev/null

stream() {
  tidy_path
  unset TAR_OPTIONS PERL5OPT
  cd "$staging" 2>/dev/null || fail staging "$(stat -- "$staging/." 2>&1)"
  why=$(mkdir -p -- "$batch" 2>&1) || fail staging "$why"
  cd "$batch" || fail staging 'no right to enter the directory of the batch'
  widen
  unpack | watch
  say end
}

stream
