"""The catalogue `sqlite`: what its rows say, and what it says of a database that can't be used."""

import gzip
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.files import Checksum
from endpoint.catalogues.contract import CatalogueError, Request, Result, Verdict
from endpoint.catalogues.sqlite import APPLICATION_ID, SqliteCatalogue
from tests.apart import CAP_DAC_OVERRIDE, apart, give_up, mount, own_namespaces
from tests.catalogues import request
from tests.fits import night
from tests.ledgers import write

IMAGE = next(night(exposures=1, detectors=1, pixels=50)).content
MOSAIC = next(night(exposures=1, detectors=3, pixels=50, mosaic=True)).content
OF_NOBODY = IMAGE.replace(b"DECam", b"Frodo").replace(b"CTIO 4.0-m telescope", b"Shire 1.0-m         ")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.db"


@pytest.fixture
def catalogue(path: Path) -> Iterator[SqliteCatalogue]:
    catalogue = SqliteCatalogue({"path": str(path)})
    catalogue.open()
    yield catalogue
    catalogue.close()


def ask(path: Path, query: str) -> list[dict[str, object]]:
    """What anybody gets who opens the database."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(query)]
    finally:
        connection.close()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_nothing_is_called_ingested_into_a_database_that_was_moved_away(
    catalogue: SqliteCatalogue, path: Path, tmp_path: Path, is_replaced: bool
) -> None:
    list(catalogue.ingest([request(tmp_path, b"before.txt")]))
    aside = tmp_path / "aside"
    aside.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        file.rename(aside / file.name)
    if is_replaced:
        SqliteCatalogue({"path": str(path)}).open()
    with pytest.raises(CatalogueError, match="moved, removed or replaced"):
        list(catalogue.ingest([request(tmp_path, b"a.txt")]))


def test_where_none_is_to_be_made_an_empty_file_alone_becomes_a_catalogue(path: Path, tmp_path: Path) -> None:
    catalogue = SqliteCatalogue({"path": str(path), "create": False})
    for ask_it in (catalogue.version, catalogue.open):
        with pytest.raises(CatalogueError, match="is not there, and a new one would lack"):
            ask_it()
    assert not path.exists()
    path.touch()
    catalogue.open()
    assert list(catalogue.ingest([request(tmp_path, b"a.txt")])) == [Result(1, Verdict.INGESTED)]
    catalogue.close()


def test_a_known_instruments_file_is_translated(
    catalogue: SqliteCatalogue, tmp_path: Path, path: Path
) -> None:
    asked = request(tmp_path, b"night/image.fits", IMAGE)
    assert list(catalogue.ingest([asked])) == [Result(1, Verdict.INGESTED)]
    [row] = ask(path, "SELECT * FROM files")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(row.pop("ingested_at")))
    assert row == {
        "id": 1,
        "name": "night/image.fits",
        "path": str(tmp_path / "night/image.fits"),
        "size": len(IMAGE),
        "algorithm": "sha256",
        "digest": asked.checksum.digest,
        "kind": "fits",
        "translator": "DECam",
        "instrument": "DECam",
        "telescope": "CTIO 4.0-m telescope",
        "observation_id": "ct4m20260314t235800",
        "exposure": 1234001,
        "detector": 1,
        "physical_filter": "i DECam SDSS c0003 7835.0 1470.0",
        "observation_type": "science",
        "object": "XMM-LSS",
        "datetime_begin": "2026-03-14T23:58:00.000Z",
        "datetime_end": "2026-03-14T23:59:30.000Z",
        "exposure_time": 90.0,
    }


def test_an_unknown_instruments_file_has_its_cards(
    catalogue: SqliteCatalogue, tmp_path: Path, path: Path
) -> None:
    list(catalogue.ingest([request(tmp_path, b"image.fits", OF_NOBODY)]))
    columns = "translator, instrument, telescope, exposure, detector, datetime_begin, exposure_time"
    assert ask(path, f"SELECT {columns} FROM files") == [
        {
            "translator": None,
            "instrument": "Frodo",
            "telescope": "Shire 1.0-m",
            "exposure": 1234001,
            "detector": 1,
            "datetime_begin": "2026-03-14T23:58:00.000000",
            "exposure_time": 90.0,
        }
    ]


def test_files_of_one_exposure_and_of_others_are_told_apart(
    catalogue: SqliteCatalogue, tmp_path: Path, path: Path
) -> None:
    """What detectors have in common is translated once."""
    images = list(night(exposures=3, detectors=2, pixels=20))
    asked = [request(tmp_path, one.path.encode(), one.content, number=n) for n, one in enumerate(images)]
    list(catalogue.ingest(asked[::2] + asked[1::2]))
    assert ask(path, "SELECT exposure, detector, datetime_begin FROM files ORDER BY name") == [
        {"exposure": 1234001 + number, "detector": detector, "datetime_begin": begun}
        for number, begun in enumerate(
            ["2026-03-14T23:58:00.000Z", "2026-03-14T23:59:59.000Z", "2026-03-15T00:03:28.000Z"]
        )
        for detector in (1, 2)
    ]


def test_a_file_of_several_detectors_is_of_none(
    catalogue: SqliteCatalogue, tmp_path: Path, path: Path
) -> None:
    list(catalogue.ingest([request(tmp_path, b"mosaic.fits", MOSAIC)]))
    assert ask(path, "SELECT translator, exposure, detector FROM files") == [
        {"translator": "DECam", "exposure": 1234001, "detector": None}
    ]
    assert ask(path, "SELECT hdu, value FROM cards WHERE keyword = 'CCDNUM'") == [
        {"hdu": 1, "value": 1},
        {"hdu": 2, "value": 2},
        {"hdu": 3, "value": 3},
    ]


def test_all_cards_are_kept_unless_they_are_not_wanted(tmp_path: Path, path: Path) -> None:
    for name, keeps in ((b"a.fits", True), (b"b.fits", False)):
        catalogue = SqliteCatalogue({"path": path, "cards": keeps})
        catalogue.open()
        list(catalogue.ingest([request(tmp_path, name, IMAGE)]))
        catalogue.close()
    [cards] = ask(path, "SELECT count(*) AS count, count(DISTINCT file_id) AS files FROM cards")
    assert cards == {"count": 60, "files": 1}
    assert ask(path, "SELECT * FROM cards WHERE hdu = 0 AND keyword = 'AIRMASS'") == [
        {"file_id": 1, "hdu": 0, "position": 31, "keyword": "AIRMASS", "value": 1.38, "comment": "Airmass"}
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (b"cut.fits", IMAGE[:-3000], "truncated"),
        (b"cut.fits.fz", IMAGE[:4000], "truncated"),
        (b"magic.dat", IMAGE[:4000], "truncated"),
        (b"no.FITS", b"nothing of the kind", "no FITS file"),
        (b"empty.fit", b"", "it is empty"),
        (b"cut.fits.gz", gzip.compress(IMAGE, mtime=0)[:-20], "its compression is damaged"),
        (b"less.fits.gz", gzip.compress(IMAGE[:-3000], mtime=0), "truncated"),
        (b"other.fits.gz", gzip.compress(b"nothing of the kind", mtime=0), "no FITS file"),
    ],
)
def test_what_claims_to_be_fits_and_is_not_whole_is_invalid(
    catalogue: SqliteCatalogue, tmp_path: Path, name: bytes, content: bytes, reason: str
) -> None:
    [result] = catalogue.ingest([request(tmp_path, name, content)])
    assert (result.verdict, reason in result.reason) == (Verdict.INVALID, True)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        (b"image.fits.gz", gzip.compress(IMAGE, mtime=0), "fits"),
        (b"image.bin", IMAGE, "fits"),
        (b"image.bin.gz", gzip.compress(IMAGE, mtime=0), "other"),
        (b"log.txt", b"it rained", "other"),
        (b"nothing", b"", "other"),
    ],
)
def test_files_are_fits_by_name_or_by_their_first_bytes(
    catalogue: SqliteCatalogue, tmp_path: Path, path: Path, name: bytes, content: bytes, kind: str
) -> None:
    [result] = catalogue.ingest([request(tmp_path, name, content)])
    assert result.verdict is Verdict.INGESTED
    assert ask(path, "SELECT kind, exposure FROM files") == [
        {"kind": kind, "exposure": 1234001 if kind == "fits" else None}
    ]


@pytest.mark.parametrize(
    "broken",
    [
        IMAGE.replace(b"DTUTC   =", b"DTUTX   ="),
        IMAGE.replace(b"MJD-OBS =", b"MJD-OBX ="),
        IMAGE.replace(b"'2026-03-14T23:58:00.000000'", b"'the day before yesterday  '"),
        IMAGE.replace(b"             1234001", b"99999999999999999999"),
        IMAGE.replace(b"FILTER  = 'i DECam", b"FILTER  = 'i Frodo"),
    ],
)
def test_headers_that_make_little_sense_are_catalogued_with_what_they_say(
    catalogue: SqliteCatalogue, tmp_path: Path, path: Path, broken: bytes
) -> None:
    assert broken != IMAGE
    [result] = catalogue.ingest([request(tmp_path, b"image.fits", broken)])
    assert result == Result(1, Verdict.INGESTED)
    assert ask(path, "SELECT instrument, object FROM files") == [{"instrument": "DECam", "object": "XMM-LSS"}]


def test_other_content_under_the_same_name_is_a_conflict(
    catalogue: SqliteCatalogue, tmp_path: Path, path: Path
) -> None:
    first = request(tmp_path, b"a.txt", b"first")
    [ingested] = catalogue.ingest([first])
    [conflict] = catalogue.ingest([replace(first, checksum=Checksum("sha256", "f" * 64))])
    assert (ingested.verdict, conflict.verdict) == (Verdict.INGESTED, Verdict.CONFLICT)
    assert conflict.reason == (
        f"the catalogue has a file of this name with sha256 {first.checksum.digest}, "
        f"this one has sha256 {'f' * 64}"
    )
    assert ask(path, "SELECT digest FROM files") == [{"digest": first.checksum.digest}]


def test_a_row_that_somebody_has_removed_with_a_shell_makes_room_for_the_next_file(
    catalogue: SqliteCatalogue, tmp_path: Path, path: Path
) -> None:
    """The program sqlite3 heeds no foreign keys unless it is told to, so that cards stay behind."""
    list(catalogue.ingest([request(tmp_path, b"a.fits", IMAGE)]))
    write(path, "DELETE FROM files WHERE name = ?", "a.fits")
    assert list(catalogue.ingest([request(tmp_path, b"b.txt")])) == [Result(1, Verdict.INGESTED)]
    assert ask(path, "SELECT name, keyword FROM files LEFT JOIN cards ON file_id = files.id") == [
        {"name": "b.txt", "keyword": None}
    ]
    write(path, "DELETE FROM files")
    list(catalogue.ingest([request(tmp_path, b"a.fits", IMAGE)]))
    write(path, "DELETE FROM files")
    assert list(catalogue.ingest([request(tmp_path, b"b.fits", MOSAIC)])) == [Result(1, Verdict.INGESTED)]
    assert ask(path, "SELECT count(DISTINCT hdu) AS units FROM cards") == [{"units": 4}]


def test_the_same_name_twice_in_a_batch_is_one_file(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    asked = request(tmp_path, b"a.txt")
    found = list(catalogue.ingest([asked, replace(asked, id=2)]))
    assert found == [Result(1, Verdict.INGESTED), Result(2, Verdict.ALREADY)]


def test_a_file_that_is_gone_has_failed(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    asked = request(tmp_path, b"a.fits", IMAGE)
    os.unlink(asked.path)
    assert list(catalogue.ingest([asked])) == [
        Result(1, Verdict.FAILED, "can't be read: No such file or directory")
    ]


def test_two_catalogues_share_a_database(catalogue: SqliteCatalogue, tmp_path: Path, path: Path) -> None:
    other = SqliteCatalogue({"path": path})
    other.open()
    mine = [request(tmp_path, b"a.txt"), request(tmp_path, b"b.txt", number=2)]
    assert [result.verdict for result in catalogue.ingest(mine[:1])] == [Verdict.INGESTED]
    assert [result.verdict for result in other.ingest(mine)] == [Verdict.ALREADY, Verdict.INGESTED]
    other.close()


def test_the_documented_queries_answer(catalogue: SqliteCatalogue, tmp_path: Path, path: Path) -> None:
    for number, image in enumerate(night(exposures=3, detectors=2, pixels=20), 1):
        list(catalogue.ingest([request(tmp_path, image.path.encode(), image.content, number=number)]))
    text = (Path(__file__).parents[2] / "docs" / "catalogues.md").read_text()
    by_night, by_detector, by_card = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    assert sum(int(str(row["count(*)"])) for row in ask(path, by_night)) == 6
    assert {row["night"] for row in ask(path, by_night)} == {"2026-03-14"}
    assert ask(path, by_detector.replace("detector = 7", "detector = 2")) == [
        {"path": str(tmp_path / "20260314/01234001/DECam_01234001_c02.fits")}
    ]
    assert all(float(str(row["value"])) > 1.5 for row in ask(path, by_card))
    assert ask(path, by_card)


def documented(section: str) -> set[str]:
    """The columns that the documentation's table names."""
    text = (Path(__file__).parents[2] / "docs" / "catalogues.md").read_text().split(section)[1]
    table = text.split("\n\n")[1]
    return {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}


@pytest.mark.parametrize(
    ("table", "section"), [("files", "`files`, one row a file:"), ("cards", "`cards`, one row for each card")]
)
def test_each_column_is_documented(catalogue: SqliteCatalogue, path: Path, table: str, section: str) -> None:
    columns = {str(row["name"]) for row in ask(path, f"PRAGMA table_info({table})")}
    assert documented(section) == columns


def refusal(path: Path, asked: list[Request]) -> CatalogueError:
    """How a catalogue there says that it can't be used."""
    catalogue = SqliteCatalogue({"path": path})
    with pytest.raises(CatalogueError) as raised:  # noqa: PT012 - which of them it is does not matter
        catalogue.open()
        list(catalogue.ingest(asked))
    catalogue.close()
    assert raised.value.hint
    return raised.value


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE something (else_)")
    connection.close()


def newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def torn(path: Path) -> None:
    catalogue = SqliteCatalogue({"path": path})
    catalogue.open()
    catalogue.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


_SEEN_BY_SQLITE_ALONE = (
    "the catalogue is corrupt (database",
    "was made by a newer version (schema 99, here 1)",
)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"no database, but long"), "the catalogue is corrupt (it is"),
        (torn, "the catalogue is corrupt (database"),
        (foreign, "is a database of something else"),
        (newer, "was made by a newer version (schema 99, here 1)"),
        (lambda path: path.mkdir(), "can't be written (Is a directory)"),
    ],
)  # fmt: skip
def test_what_is_no_catalogue_of_ours_is_left_as_it_is(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "catalogue.db"
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    assert message in refusal(path, [request(tmp_path, b"files/a.txt")]).message
    if message not in _SEEN_BY_SQLITE_ALONE:
        with pytest.raises(CatalogueError, match=re.escape(message)):
            SqliteCatalogue({"path": path}).version()
    assert before == (path.read_bytes() if path.is_file() else None)


def test_a_directory_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "mistyped" / "catalogue.db"
    message = f"{path.parent}, which the catalogue lies in, is no directory"
    assert message in refusal(path, []).message
    with pytest.raises(CatalogueError, match=message):
        SqliteCatalogue({"path": path}).version()
    assert not path.parent.exists()


def test_a_catalogue_that_is_locked_is_no_files_fault(path: Path, tmp_path: Path) -> None:
    SqliteCatalogue({"path": path}).open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    catalogue = SqliteCatalogue({"path": path}, patience=0.1)
    with pytest.raises(CatalogueError, match="kept the catalogue locked"):
        catalogue.open()
    other.execute("ROLLBACK")
    catalogue.open()
    other.execute("BEGIN IMMEDIATE")
    asked = request(tmp_path, b"a.txt")
    with pytest.raises(CatalogueError, match="kept the catalogue locked"):
        list(catalogue.ingest([asked]))
    other.execute("ROLLBACK")
    assert list(catalogue.ingest([asked])) == [Result(1, Verdict.INGESTED)]
    other.close()


def on_a_small_disk(directory: Path) -> list[str]:
    """What a catalogue says as its disk fills up, gets room again, and is made read-only."""
    assert own_namespaces(), "a small disk can't be mounted here"
    disk = directory / "disk"
    disk.mkdir()
    assert mount("tmpfs", disk, "size=1m")
    catalogue = SqliteCatalogue({"path": disk / "catalogue.db"})
    catalogue.open()
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    asked = [request(directory, b"%d.fits" % number, MOSAIC, number=number) for number in range(150)]
    said = []
    try:
        list(catalogue.ingest(asked))
    except CatalogueError as error:
        said.append(error.message)
    ballast.unlink()
    said += sorted({str(result.verdict) for result in catalogue.ingest(asked[:10])})
    return said


def test_a_full_disk_is_no_files_fault_and_space_helps(tmp_path: Path) -> None:
    said = apart(on_a_small_disk, tmp_path)
    assert said == [f"{tmp_path}/disk/catalogue.db: no space left for the catalogue", "ingested"]


def without_rights(directory: Path) -> str:
    """What a catalogue says that may be read alone."""
    path = directory / "catalogue.db"
    SqliteCatalogue({"path": path}).open()
    asked = [request(directory / "files", b"a.txt")]
    path.chmod(0o444)
    directory.chmod(0o555)
    give_up(CAP_DAC_OVERRIDE)
    return refusal(path, asked).message


def test_a_catalogue_that_may_not_be_written_is_no_files_fault(tmp_path: Path) -> None:
    assert "the catalogue can't be written" in apart(without_rights, tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "path: must be the path of the catalogue's database"),
        ({"path": 5}, "path: must be the path of the catalogue's database"),
        ({"path": "x", "cards": "no"}, "cards: must be true or false"),
        ({"path": "x", "pathh": "y"}, "pathh: unknown key; did you mean path?"),
    ],
)
def test_a_wrong_configuration_is_told(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SqliteCatalogue(config)
