"""The endpoint manager at its ordinary work: what arrives is verified, stored and ingested, each once."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from common.files import Fence
from common.ledger.ledger import Ledger
from common.ledger.rows import Found
from endpoint.lifecycle import LIFECYCLE, VERIFY
from tests.archive import Archive, line
from tests.loopback import files_below, write_file
from tests.runs import Run, counts, descendants, eventually, rows, states
from tests.troubles import disk, story

STRAIGHT = ["arrived", "verifying", "verified", "storing", "stored", "ingesting", "ingested"]
"""The story of a file that nothing befell."""


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    archive.write_config()
    return archive


def assert_archived(archive: Archive, content: dict[bytes, bytes]) -> None:
    """Everything is in storage and in the catalogue, once; the ledger says the same."""
    assert files_below(archive.storage) == content
    assert archive.catalogued() == sorted(content)
    assert counts(archive)["ingested"] == len(content)


# Find and verify


def test_what_is_delivered_is_verified_stored_and_ingested(archive: Archive) -> None:
    content = archive.deliver({b"night/%d.dat" % number: os.urandom(1000) for number in range(30)})
    assert archive.once() == 0
    assert_archived(archive, content)
    assert files_below(archive.buffer) == {}
    assert story(archive, b"night/7.dat") == [STRAIGHT]
    assert archive.notes() == []


def test_names_are_data(archive: Archive) -> None:
    names = [b"a b", b"-rf", b"two\nlines", b"'q\" ", b"$(reboot)", b"#%20", b"\xfe\xff/\xfe", b"n\xc3\xa9"]
    content = archive.deliver({name: name * 9 for name in names}, note=None)
    assert archive.once() == 0
    assert_archived(archive, content)


def test_a_file_that_appears_while_the_manager_runs_is_ingested(archive: Archive) -> None:
    with Run(archive) as manager:
        eventually(lambda: counts(archive) == {} and archive.ledger.exists())
        content = archive.deliver({b"a.dat": b"light"})
        eventually(lambda: counts(archive) == {"ingested": 1})
        assert manager.stop() == 0
    assert_archived(archive, content)


def test_what_differs_from_its_note_is_rejected_and_told_with_both_digests(archive: Archive) -> None:
    archive.deliver({b"bad.dat": b"altered"}, digest="0" * 64)
    good = archive.deliver({b"good.dat": b"light"}, note="batch-1")
    assert archive.once() == 3
    assert counts(archive) == {"rejected": 1, "ingested": 1}
    assert files_below(archive.buffer) == {b"bad.dat": b"altered"}
    assert files_below(archive.storage) == good
    [(reason,)] = rows(archive, "SELECT reason FROM files WHERE state = 'rejected'")
    assert "0" * 64 in reason
    assert str(line(b"bad.dat", b"altered")["digest"]) in reason
    assert archive.notes() == ["batch-0"]


def test_the_right_content_after_a_rejected_one_is_a_version_of_its_own(archive: Archive) -> None:
    archive.note("batch-0", line(b"a.dat", b"light"))
    archive.deliver({b"a.dat": b"altered"}, note=None)
    assert archive.once() == 3
    content = archive.deliver({b"a.dat": b"light"}, note=None)
    assert archive.once() == 3
    assert states(archive, b"a.dat") == ["rejected", "ingested"]
    assert_archived(archive, content)
    assert archive.notes() == []


def test_without_a_note_a_file_waits_where_one_is_required(archive: Archive) -> None:
    archive.write_config(endpoint={"require_note": True}, general={"retry": {"attempts": 1}})
    content = archive.deliver({b"a.dat": b"light"}, note=None)
    assert archive.once() == 3
    assert counts(archive) == {"failed": 1}
    archive.note("batch-0", line(b"a.dat", b"light"))
    assert archive.command("retry", archive.config, "a.dat").exit_code == 0
    assert archive.once() == 0
    assert_archived(archive, content)


def test_what_is_stored_needs_no_note_to_be_a_second_copy_where_one_is_required(archive: Archive) -> None:
    """Its note may be gone since the first one was stored."""
    archive.write_config(endpoint={"require_note": True})
    content = archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 0
    assert archive.notes() == []
    archive.deliver({b"a.dat": b"light"}, note=None)
    assert archive.once() == 0
    assert counts(archive) == {"ingested": 1, "duplicate": 1}
    assert_archived(archive, content)


@pytest.mark.parametrize(
    "text",
    ["", "{}\n", "nonsense\n", '{"path": "b.dat", "si', "[1]\n" * 3, "\0\xff\n", '{"path": 7}\n'],
    ids=["empty", "no keys", "no json", "half", "lists", "binary", "no path"],
)
def test_a_note_that_makes_no_sense_kills_nothing(archive: Archive, text: str) -> None:
    archive.note_text("odd", text)
    content = archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 0
    assert_archived(archive, content)
    assert archive.notes() == ["odd"]


def test_a_note_of_nonsense_is_told_in_a_few_lines(archive: Archive) -> None:
    archive.note_text("odd", "nonsense\n" * 50_000)
    content = archive.deliver({b"a.dat": b"light"})
    ended = archive.command("start", archive.config, "--once")
    assert ended.exit_code == 0
    assert_archived(archive, content)
    told = [line for line in ended.stderr.decode().splitlines() if "odd" in line]
    assert len(told) == 12
    assert told[-2].endswith("odd.jsonl: it is read no further than line 1,000")
    assert told[-1].endswith("odd.jsonl: 1,000 lines in all")


def test_a_note_stays_until_all_that_it_names_is_there(archive: Archive) -> None:
    archive.note("batch-0", line(b"a.dat", b"light"), line(b"b.dat", b"dark"))
    archive.deliver({b"a.dat": b"light"}, note=None)
    assert archive.once() == 0
    assert archive.notes() == ["batch-0"]
    archive.deliver({b"b.dat": b"dark"}, note=None)
    assert archive.once() == 0
    assert archive.notes() == []


def test_a_note_stays_until_what_it_names_has_got_past_a_conflict(archive: Archive) -> None:
    """Verified once more by `retry`, a file needs its note once more."""
    archive.write_config(endpoint={"require_note": True})
    write_file(archive.storage, b"a.dat", b"other")
    content = archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 3
    assert archive.notes() == ["batch-0"]
    (archive.storage / "a.dat").unlink()
    assert archive.command("retry", archive.config, "a.dat").exit_code == 0
    assert archive.once() == 0
    assert_archived(archive, content)
    assert archive.notes() == []


def test_a_rejected_file_is_taken_once_a_note_agrees_with_it(archive: Archive) -> None:
    """What has that digest already is found there when it is delivered again, and only the note comes."""
    content = archive.deliver({b"a.dat": b"light"}, digest="0" * 64)
    assert archive.once() == 3
    archive.note("batch-1", line(b"a.dat", b"light"))
    assert archive.once() == 3
    assert archive.command("retry", archive.config, "a.dat").exit_code == 0
    assert archive.once() == 0
    assert_archived(archive, content)
    assert archive.notes() == ["batch-0"]


def test_many_small_notes_are_all_removed_by_a_manager_that_ends_at_once(archive: Archive) -> None:
    for number in range(60):
        archive.deliver({b"%d.dat" % number: b"%d" % number}, note=f"batch-{number}")
    assert archive.once() == 0
    assert archive.notes() == []


def test_a_note_of_what_is_stored_already_stays_until_that_is_verified_once_more(archive: Archive) -> None:
    """Handed over again while the manager is away; it looks at notes before it looks at files."""
    archive.write_config(endpoint={"require_note": True})
    content = archive.deliver({b"a.dat": b"light", b"b.dat": b"dark"})
    assert archive.once() == 0
    archive.deliver(content, note="batch-1")
    assert archive.once() == 0
    assert_archived(archive, content)
    assert counts(archive) == {"ingested": 2, "duplicate": 2}
    assert archive.notes() == []


def test_what_is_stored_is_not_rejected_for_the_note_of_a_newcomer(archive: Archive) -> None:
    content = archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 0
    archive.deliver({b"a.dat": b"dark"}, note="batch-1")
    assert archive.once() == 3
    archive.deliver(content, note=None)
    archive.once()
    assert files_below(archive.buffer) == {}
    assert states(archive, b"a.dat")[0] == "ingested"
    assert "rejected" not in counts(archive)


def test_a_note_may_use_another_algorithm(archive: Archive) -> None:
    content = {b"a.dat": b"light"}
    archive.deliver(content, algorithm="blake2b", digest=hashlib.blake2b(b"light").hexdigest())
    assert archive.once() == 0
    assert_archived(archive, content)
    assert rows(archive, "SELECT algorithm FROM files") == [("blake2b",)]


def test_a_duplicate_by_another_algorithm_is_accounted_for_and_told(archive: Archive) -> None:
    content = archive.deliver({b"a.dat": b"light"}, note=None)
    assert archive.once() == 0
    archive.deliver(content, algorithm="blake2b", digest=hashlib.blake2b(b"light").hexdigest())
    assert archive.once() == 0
    assert_archived(archive, content)
    assert counts(archive) == {"ingested": 1, "duplicate": 1}
    assert archive.notes() == []
    assert [(told["algorithm"], told["state"]) for told in archive.receipts()] == [("blake2b", "ingested")]


# Duplicates and conflicts


def test_a_repeated_delivery_is_a_duplicate_and_goes(archive: Archive) -> None:
    content = archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 0
    for number in (1, 2):
        archive.deliver(content, note=f"batch-{number}")
        assert archive.once() == 0
    assert counts(archive) == {"ingested": 1, "duplicate": 1}
    assert_archived(archive, content)
    assert files_below(archive.buffer) == {}
    assert archive.notes() == []
    checked = json.loads(archive.command("check", archive.config, "--json").stdout)["results"]
    assert [result["status"] for result in checked if result["name"] == "failures"] == ["OK"]


def test_a_duplicate_may_be_kept(archive: Archive) -> None:
    archive.write_config(endpoint={"on_duplicate": "keep"})
    content = archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 0
    archive.deliver(content, note=None)
    for _ in range(2):
        assert archive.once() == 0
    assert counts(archive) == {"ingested": 1, "duplicate": 1}
    assert files_below(archive.buffer) == content
    assert len(story(archive, b"a.dat")[1]) == 3


def test_a_conflict_that_is_tried_again_by_another_algorithm_says_so(archive: Archive) -> None:
    archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 0
    archive.deliver({b"a.dat": b"other"}, note=None)
    assert archive.once() == 3
    digest = hashlib.blake2b(b"other").hexdigest()
    archive.note("batch-1", line(b"a.dat", b"other") | {"algorithm": "blake2b", "digest": digest})
    assert archive.command("retry", archive.config, "--cause", "conflict").exit_code == 0
    assert archive.once() == 3
    assert rows(archive, "SELECT state, algorithm, reason FROM files WHERE id > 1") == [
        ("vanished", "sha256", "goes on as another entry, with its digest by blake2b"),
        ("conflict", "blake2b", f"a.dat: {archive.storage}/a.dat has other content; neither was touched"),
    ]


def test_other_content_under_a_stored_name_is_a_conflict_and_nothing_else_waits(archive: Archive) -> None:
    first = archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 0
    other = archive.deliver({b"a.dat": b"other"}, note="batch-1")
    more = archive.deliver({b"b.dat": b"dark"}, note="batch-2")
    assert archive.once() == 3
    assert counts(archive) == {"ingested": 2, "conflict": 1}
    assert files_below(archive.storage) == first | more
    assert files_below(archive.buffer) == other
    (archive.storage / "a.dat").unlink()
    assert archive.command("retry", archive.config, "a.dat").exit_code == 0
    assert archive.once() == 3
    # Its content is stored; the catalogue has the first version under that name, and keeps it.
    assert files_below(archive.storage) == other | more
    assert states(archive, b"a.dat") == ["ingested", "conflict"]


def test_what_was_lost_from_storage_is_taken_on_again(archive: Archive) -> None:
    content = archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 0
    (archive.storage / "a.dat").unlink()
    archive.deliver(content)
    assert archive.once() == 0
    assert_archived(archive, content)
    assert counts(archive) == {"ingested": 1}


def test_what_storage_has_and_the_ledger_does_not_know_is_ingested(archive: Archive) -> None:
    write_file(archive.storage, b"a.dat", b"light")
    content = archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 0
    assert_archived(archive, content)
    assert files_below(archive.buffer) == {}


def test_what_a_killed_try_removed_is_ingested_if_the_ledger_does_not_know_what_is_stored(
    archive: Archive,
) -> None:
    """A second copy goes before the ledger learns of it."""
    write_file(archive.storage, b"a.dat", b"light")
    content = archive.deliver({b"a.dat": b"light"})
    found = archive.buffer / "a.dat"
    with Ledger.open(archive.ledger, LIFECYCLE) as ledger:
        ledger.record([Found(b"a.dat", Fence.of(found.stat()))], now_ms=1)
        assert ledger.claim(VERIFY, limit=1, max_bytes=1 << 20, worker=0, now_ms=1)
    found.unlink()
    assert archive.once() == 0
    assert_archived(archive, content)
    assert counts(archive) == {"ingested": 1}
    assert archive.notes() == []
    assert [told["state"] for told in archive.receipts()] == ["ingested", "stored"]


def test_what_is_removed_while_its_name_is_taken_by_other_content_has_vanished(archive: Archive) -> None:
    write_file(archive.storage, b"a.dat", b"other")
    archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 3
    (archive.buffer / "a.dat").unlink()
    assert archive.command("retry", archive.config, "a.dat").exit_code == 0
    assert archive.once() == 0
    assert counts(archive) == {"vanished": 1}
    # Whoever puts it into storage by hand, and has it delivered again, has it ingested.
    content = archive.deliver({b"a.dat": b"light"})
    write_file(archive.storage, b"a.dat", b"light")
    assert archive.once() == 0
    assert_archived(archive, content)
    assert counts(archive) == {"ingested": 1}


# Store


@pytest.mark.usefixtures("disks")
def test_a_file_is_copied_and_proven_where_storage_is_another_filesystem(archive: Archive) -> None:
    with disk(archive.storage, "size=16m"):
        content = archive.deliver({b"n/%d.dat" % number: os.urandom(9000) for number in range(5)})
        assert archive.once() == 0
        assert_archived(archive, content)
        assert files_below(archive.buffer) == {}


# Ingest


def test_lists_decide_what_is_ingested(archive: Archive) -> None:
    archive.write_config(ingester={"include_list": [r"\.fits$"], "exclude_list": ["^focus/"]})
    content = archive.deliver({name: name for name in (b"a.dat", b"focus/b.dat", b"focus/c.fits")})
    assert archive.once() == 0
    assert counts(archive) == {"ignored": 3}
    assert files_below(archive.storage) == content
    assert archive.catalogued() == []


def test_what_the_catalogue_finds_invalid_waits_for_a_person(archive: Archive) -> None:
    archive.deliver({b"bad.fits": b"SIMPLE  =                    T" + b" " * 50}, note=None)
    good = archive.deliver({b"good.dat": b"light"}, note=None)
    assert archive.once() == 3
    assert counts(archive) == {"failed": 1, "ingested": 1}
    assert rows(archive, "SELECT due_at, cause FROM files WHERE state = 'failed'") == [(None, "invalid")]
    assert archive.catalogued() == sorted(good)


def test_what_is_lost_or_altered_in_storage_is_told_and_not_ingested(archive: Archive) -> None:
    """The catalogue would know it by a digest that it has not."""
    lists = {"catalogue": "command", "config": {"run": "false {files}"}}
    archive.write_config(ingester=lists)
    content = archive.deliver({b"lost.dat": b"light", b"altered.dat": b"dark", b"touched.dat": b"flat"})
    assert archive.once() == 3
    assert counts(archive) == {"stored": 3}
    (archive.storage / "lost.dat").unlink()
    (archive.storage / "altered.dat").write_bytes(b"DARK")
    (archive.storage / "touched.dat").touch()
    archive.write_config()
    assert archive.once() == 3
    assert archive.catalogued() == [b"touched.dat"]
    causes = sorted(failure["cause"] for failure in archive.status()["failures"])
    assert causes == ["altered in storage", "lost from storage"]
    write_file(archive.storage, b"altered.dat", b"dark")
    assert archive.command("retry", archive.config, "altered.dat").exit_code == 0
    archive.deliver({b"lost.dat": b"light"})
    assert archive.once() == 0
    assert_archived(archive, content)


def test_ingestion_goes_on_after_the_worker_that_ingests_was_killed_while_idle(archive: Archive) -> None:
    with Run(archive) as manager:
        archive.deliver({b"a.dat": b"light", b"b.dat": b"dark"}, note=None)
        eventually(lambda: counts(archive) == {"ingested": 2})
        # Each worker has a number; the catalogue belongs to the first.
        for worker in descendants(manager.process)["worker"]:
            if worker.ppid() == manager.process.pid and worker.cmdline()[-1] == "0":
                worker.kill()
        archive.deliver({b"c.dat": b"flat"}, note=None)
        eventually(lambda: counts(archive) == {"ingested": 3})
        assert manager.stop() == 0


# Between the two managers


def test_receipts_tell_what_was_stored_and_ingested(archive: Archive) -> None:
    archive.deliver({b"a.dat": b"light"}, note="batch-00ff-1")
    archive.deliver({b"stranger.dat": b"dark"}, note=None)
    assert archive.once() == 0
    told = [(receipt["path"], receipt["state"]) for receipt in archive.receipts()]
    assert told == [("a.dat", "ingested"), ("a.dat", "stored")]
    names = {path.name.rsplit("-", 2)[0] for path in (archive.staging / ".receipts").iterdir()}
    assert names == {"batch-00ff-1"}


# Commands


def test_status_history_and_validate_know_the_endpoint(archive: Archive) -> None:
    archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 0
    told = archive.status()
    assert told["states"]["ingested"] == {"files": 1, "bytes": 5}
    assert told["rates"]["1m"]["files"] == 1
    assert set(told["disk"]) >= {"buffer", "storage", "ledger"}
    history = json.loads(archive.command("history", archive.config, "a.dat", "--json").stdout)
    assert history["versions"][0]["state"] == "ingested"
    assert archive.command("validate", archive.config).exit_code == 0


def test_a_missing_storage_is_an_error_and_nothing_is_made_in_its_place(archive: Archive) -> None:
    archive.storage.rmdir()
    done = archive.command("start", archive.config, "--once")
    assert done.exit_code == 1
    assert b"endpoint.storage" in done.stderr
    assert not archive.storage.exists()


def test_a_canary_goes_the_way_of_every_file_and_leaves_nothing(archive: Archive) -> None:
    content = archive.deliver({b"a.dat": b"light"})
    assert archive.once() == 0
    done = archive.command("check", archive.config, "--canary", "--json")
    told = [result for result in json.loads(done.stdout)["results"] if result["name"] == "canary"]
    assert [result["status"] for result in told] == ["OK"] * 4, told
    assert_archived(archive, content)
    assert os.listdir(archive.storage) == ["a.dat"]


def _checked(archive: Archive) -> tuple[str, str]:
    """What a check finds of the catalogue."""
    results = json.loads(archive.command("check", archive.config, "--json").stdout)["results"]
    return next((one["status"], one["detail"]) for one in results if one["name"] == "catalogue")


def test_a_check_finds_what_is_wrong_with_the_catalogue(archive: Archive) -> None:
    archive.catalogue.write_bytes(b"not a database" * 1000)
    assert archive.command("check", archive.config).exit_code == 4
    status, detail = _checked(archive)
    assert status == "FAIL"
    assert "catalogue.db" in detail


def test_a_check_finds_that_the_directory_of_a_catalogue_is_missing(archive: Archive) -> None:
    archive.write_config(ingester={"catalogue": "sqlite", "config": {"path": "mistyped/catalogue.db"}})
    missing = archive.directory / "mistyped"
    assert _checked(archive) == ("FAIL", f"{missing}, which the catalogue lies in, is no directory")


def test_a_check_before_the_first_start_misses_no_directory_of_ours(archive: Archive) -> None:
    engine = f"sqlite:///{archive.directory}/later/ledger.db"
    archive.write_config(ingester={"catalogue": "sqlite"}, database={"engine": engine})
    assert _checked(archive) == ("OK", "it will be created beside the ledger by the first start")
    assert not (archive.directory / "later").exists()
