"""A source of `backfill` lies below storage, however it is named."""

import os
from pathlib import Path

import pytest

from common.errors import DbbError
from endpoint.backfill import source_path


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    (tmp_path / "storage" / "night").mkdir(parents=True)
    (tmp_path / "link").symlink_to("storage")
    return tmp_path / "storage"


@pytest.mark.parametrize(
    ("named", "path"),
    [
        ("night", b"night"),
        ("./night//", b"night"),
        ("night/../a.fits", b"a.fits"),
        ("not there/b", b"not there/b"),
        ("-a b\n", b"-a b\n"),
        ("\udcff", b"\xff"),
        (".", b""),
        ("{}/storage", b""),
        ("{}/storage/night/a.fits", b"night/a.fits"),
        ("{}/link/night", b"night"),
        ("{}/link", b""),
    ],
)
def test_a_source_may_be_relative_to_storage_or_absolute(storage: Path, named: str, path: bytes) -> None:
    assert source_path(os.fsencode(storage), named.replace("{}", str(storage.parent))) == path
    assert source_path(os.fsencode(storage.parent / "link"), "night") == b"night"


@pytest.mark.parametrize("named", ["/elsewhere", "{}", "{}/storages", "..", "../a", "out/a.fits"])
def test_a_source_elsewhere_is_refused(storage: Path, named: str) -> None:
    (storage / "out").symlink_to("/tmp")
    with pytest.raises(DbbError, match="does not lie below storage"):
        source_path(os.fsencode(storage), named.replace("{}", str(storage.parent)))
