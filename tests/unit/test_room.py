"""The room for a file is that of the filesystem where it will lie."""

import os
from pathlib import Path

from common.room import room_of


def test_the_room_of_a_directory_to_be_made_is_that_of_the_nearest_above(tmp_path: Path) -> None:
    room = room_of(os.fsencode(tmp_path / "not" / "there"))
    assert 0 < room.free_bytes <= room.total_bytes
    assert room.total_bytes == room_of(os.fsencode(tmp_path)).total_bytes
