"""A directory on a disk that is not mounted is not believed to be empty."""

import os
from pathlib import Path

import pytest

from common.mounts import Ground


@pytest.fixture
def directory(tmp_path: Path) -> bytes:
    """No mount point, and empty."""
    return os.fsencode(tmp_path)


def test_a_ground_that_is_as_ever_has_no_trouble(directory: bytes) -> None:
    ground = Ground.under(directory)
    assert os.path.ismount(ground.point)
    assert ground.trouble() == ""


@pytest.mark.parametrize("point", [None, b"/", b"/nowhere/else"])
def test_only_a_mount_that_was_there_and_is_missing_is_remembered(
    directory: bytes, point: bytes | None
) -> None:
    ground = Ground.under(directory)
    assert ground.remembered(point) == ground


def test_an_empty_directory_whose_mount_is_missing_is_in_trouble_until_it_holds_something(
    directory: bytes,
) -> None:
    ground = Ground.under(directory).remembered(directory)
    assert ground == Ground(directory, directory, is_remembered=True)
    path = os.fsdecode(directory)
    assert ground.trouble() == f"{path} is not mounted as before, and {path} is empty"
    os.mkdir(directory + b"/night")
    assert ground.trouble() == ""
    assert Ground.under(directory).remembered(directory) == Ground.under(directory)


def test_a_mount_that_goes_while_a_manager_works_is_missed_whatever_shows_in_its_place(
    directory: bytes,
) -> None:
    os.mkdir(directory + b"/night")
    path = os.fsdecode(directory)
    assert Ground(directory, directory).trouble() == f"{path} is not mounted any more"


def test_a_directory_that_is_gone_is_told() -> None:
    assert Ground(b"/nowhere", b"/").trouble() == "/nowhere is not there"
