"""How much room a filesystem has."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Room:
    """What this user may still write, and how much there is in all."""

    free_bytes: int
    total_bytes: int
    free_inodes: int | None
    """None where there is no fixed number of them (btrfs)."""
    total_inodes: int | None


def room_of(directory: bytes) -> Room:
    """The room where a directory lies, or will lie once it is made.

    Raises
    ------
    OSError
        It can't be asked. (A dead network mount does not answer at all.)
    """
    while not os.path.isdir(directory) and directory != os.path.dirname(directory):
        directory = os.path.dirname(directory)
    told = os.statvfs(directory)
    return Room(
        told.f_bavail * told.f_frsize,
        told.f_blocks * told.f_frsize,
        told.f_favail if told.f_files else None,
        told.f_files or None,
    )
