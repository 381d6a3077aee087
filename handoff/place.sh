# Verifies the files of one batch where they lie in staging, and puts them into the buffer. (The text
# of visit.sh comes before this.)
#
# Nothing is changed in the buffer unless every file that the caller expects lies in staging as
# expected and its name is free: otherwise the answer tells what was found, and the caller, who takes
# out what that decides, calls again for the rest.
#
# Defined by the caller: mode (ask or place), staging, buffer, batch, layout, algorithm, openssl (may it
# be used), count (of files), expected (what `digests` should print), bulky (are there files in `bulk`),
# several (is there more than one in `lone`), many (are there many files or directories), note_size,
# retracting (take the note back), discarding (are there discards), recording (are there recorded
# receipts), passing (receipts to be passed over), receipts_most, receipts_bytes; and the lists bulk and
# lone (the files), directories (all that the files lie in, outer ones first), moves, discards, recorded.
# Paths begin with "./".

# What is at each name, a letter each, appended to $kinds. A link is never looked through.
look() {
  for name do
    if [ -L "$name" ]; then
      kinds=${kinds}l
    elif [ ! -e "$name" ]; then
      kinds=$kinds-
    elif [ -f "$name" ]; then
      kinds=${kinds}f
    elif [ -d "$name" ]; then
      kinds=${kinds}d
    else
      kinds=${kinds}o
    fi
  done
}

nul_regular() {
  for name do
    if [ -f "$name" ] && [ ! -L "$name" ]; then
      printf '%s\0' "$name"
    fi
  done
}

choose_program() {
  width=64
  program=sha256sum
  if [ "$algorithm" = blake2b ]; then
    width=128
    program=b2sum
  elif [ "$openssl" = yes ] && command -v openssl >/dev/null 2>&1; then
    # Up to four times as fast as a sha256sum that is not linked with it.
    program='openssl dgst -sha256 -r'
  fi
  jobs=1
  [ "$several" = no ] || jobs=$(nproc) || jobs=1
}

# The digests of files below the current directory, a line each: first of those in `bulk`, in their
# order, as the given command lists them; then of those in `lone`, each after its number.
digests() {
  # shellcheck disable=SC2086 # a program and its options
  [ "$bulky" = no ] || bulk "$@" | xargs -0 -r $program 2>/dev/null | cut -c "1-$width"
  if [ "$several" = no ]; then
    lone hash_each
  else
    lone hash_each | sort -n
  fi
}

# Large files, and names that the programs would escape: a process each, as many at a time as there
# are processors.
hash_each() {
  number=0
  for name do
    hash_one "$number" "$name" &
    number=$((number + 1))
    [ $((number % jobs)) -ne 0 ] || wait
  done
  wait
}

hash_one() {
  if [ -f "$2" ] && [ ! -L "$2" ]; then
    # shellcheck disable=SC2086 # a program and its options
    digest=$($program <"$2" 2>/dev/null) && printf '%s %s\n' "$1" "${digest%% *}"
  fi
}

# Whether so much waits to be written to the machine's disks that flushing all of it would take long.
is_disk_behind() {
  key=
  while read -r key value _; do
    [ "$key" != Dirty: ] || break
  done 2>/dev/null </proc/meminfo
  [ "$key" = Dirty: ] && [ "$value" -gt 1000000 ]
}

# Makes durable what is named on standard input; prints why it could not. Of many files, it is faster
# to flush their whole filesystem.
flush() {
  if [ "$many" = yes ] && ! is_disk_behind; then
    text=$(sync -f . 2>&1) && return
  else
    text=$(xargs -0 -r sync 2>&1) && return
  fi
  case $text in
    *'Input/output error'* | *'No space left'* | *'quota exceeded'*)
      printf '%s\n' "$text"
      return 1
      ;;
  esac
  # A filesystem that can't flush a directory, or a program that knows no files: everything, then.
  sync
}

flush_files() {
  {
    [ -z "$note" ] || nul "$note"
    bulk nul
    lone nul
  } | flush
}

flush_directories() {
  {
    # The note comes first: a power cut must not leave a file without it.
    [ -z "$note" ] || nul "$staging/.notes"
    nul .
    directories nul
  } | flush
}

tell_staged() {
  hush
  find . ! -type d -printf 'staged %y %s %n %P\0'
}

# Something is not as it should be: the end, with nothing changed in the buffer.
differ() {
  hush
  say "found $found"
  [ -z "$note" ] || rm -f -- "$note"
  say end
  exit 0
}

# Goes on only if all names are free, and nothing but directories is where directories have to be.
examine_buffer() {
  cd "$buffer" 2>/dev/null || fail buffer "$(stat -- "$buffer/." 2>&1)"
  kinds=
  directories look
  directory_kinds=$kinds
  kinds=
  bulk look
  lone look
  case $mode:$directory_kinds:$kinds in
    place:*[!d-]*:* | place:*:*[!-]* | ask:*) ;;
    *) return ;;
  esac
  say "directories $directory_kinds"
  say "names $kinds"
  start_ticking
  found=$(digests nul_regular)
  differ
}

# The directory $1, which has the files of one source directory, becomes the directory $2 of the tree.
move() {
  if [ -d "$1" ] && [ ! -L "$1" ] && [ ! -e "$2" ]; then
    [ -d "${2%/*}" ] || mkdir -p -- "${2%/*}"
    mv -T -- "$1" "$2"
  fi
}

enter_tree() {
  if ! cd "$staging/$batch" 2>/dev/null; then
    # It may be that nothing arrived. If staging itself is gone, that says nothing of the files.
    cd "$staging" 2>/dev/null || fail staging "$(stat -- "$staging/." 2>&1)"
    return 1
  fi
  if [ "$layout" = numbered ]; then
    moves move
    cd tree 2>/dev/null || return
  fi
  if [ "$discarding" = yes ]; then
    discards nul | xargs -0 -r rm -f --
    find . -mindepth 1 -type d -empty -delete
  fi
  tree=$(pwd && echo .)
  tree=${tree%"$newline".}
}

write_note() {
  if [ "$note_size" -gt 0 ]; then
    note=$staging/.notes/.$batch.tmp
    [ -d "$staging/.notes" ] || mkdir -p -- "$staging/.notes"
    why=$(head -c "$note_size" 2>&1 >"$note") || fail note "$why"
  fi
  read -r last
  [ "$last" = end ] || fail input 'the input of the visit ended early'
}

# Goes on only if exactly the expected files are there: as many regular files as are expected, each
# with one link, nothing else, and, as the digests show, every one of the names.
verify() {
  found=
  enter_tree || differ
  write_note
  staged=$(find . -type f -links 1 -printf f -o ! -type d -printf o)
  case ${#staged}$staged in
    *o*) ;;
    "$count"f*)
      # The disk is busy with one while the processor is with the other.
      found=$(
        flush_files &
        digests nul
        wait
      )
      [ "$found" != "$expected" ] || return
      say hashed
      ;;
  esac
  tell_staged
  differ
}

# Each file is put in place by hard link: whole, at once, never over another, and never elsewhere
# through a link. An error of one stops none of the others.
put() {
  (cd "$buffer" && directories nul | xargs -0 -r mkdir -p --)
  cp -rln ./. "$buffer/"
}

# The files have their second link in the buffer. What has only one was not placed, and of what is not
# there at all nothing is known.
is_placed() {
  placed=$(find . -type f -links +1 -printf x)
  [ ${#placed} -eq "$count" ]
}

# For filesystems that know no hard links: an exclusive rename, a process for each directory.
rename_in() {
  for directory do
    cd "$tree/$directory" || continue
    sample=$(find . -maxdepth 1 -type f -links 1 -printf %f. -quit)
    sample=${sample%.}
    [ -n "$sample" ] || continue
    why_not=$(ln -T -- "./$sample" "$buffer/$directory/$sample" 2>&1)
    case $why_not in
      *'not permitted'* | *'not supported'* | *'not implemented'*)
        # With no descriptor left for a second file, mv can't take to copying.
        find . -maxdepth 1 -type f -links 1 -print0 |
          xargs -0 -r sh -c 'ulimit -n 4 && exec mv -n -t "$0" -- "$@"' "$buffer/$directory"
        ;;
    esac
  done
}

show_note() {
  why=$(mv -f -T -- "$note" "$staging/.notes/$batch.jsonl" 2>&1) || fail note "$why"
}

place() {
  [ -z "$note" ] || show_note
  case $directory_kinds in
    *-*) why=$(put 2>&1) ;;
    *) why=$(cp -rln ./. "$buffer/" 2>&1) ;;
  esac
  is_placed && return
  # A directory may have been removed as empty in between: make it again, and try again, at once.
  why=$(put 2>&1)
  is_placed && return
  case $why in
    *'not permitted'* | *'not supported'* | *'not implemented'*)
      rename_in .
      directories rename_in
      cd "$tree" || return
      ;;
  esac
  [ -w "$buffer" ] || say unwritable
  say "why $why"
  tell_staged
}

make_durable() {
  cd "$buffer" || return
  why=$(flush_directories) || fail flush "$why"
}

visit() {
  tidy_path
  note=
  mark start
  choose_program
  if [ "$mode" = ask ] || [ "$count" -gt 0 ]; then
    examine_buffer
    mark look
    start_ticking
    verify
    mark verify
    # Whoever is no longer listening must not get anything placed.
    say verified || exit 0
    place
    mark place
    make_durable
    mark flush
  elif [ "$note_size" -gt 0 ]; then
    write_note
    show_note
  elif [ "$retracting" = yes ]; then
    rm -f -- "$staging/.notes/$batch.jsonl"
  fi
  cd /
  remove "$staging/$batch"
  mark clear
  # They are on one filesystem, or nothing could have been placed.
  space buffer "$buffer"
  finish
}

visit
