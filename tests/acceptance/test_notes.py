"""What the two managers leave for each other in staging: delivery notes, and receipts (CONTRACT §5)."""

import base64
import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

from inotify_simple import INotify, flags  # type: ignore[import-untyped]

from tests.archive import Archive
from tests.loopback import Sites, files_below, write_file
from tests.runs import Run, counts, eventually, rows
from tests.troubles import carry_all


def notes(sites: Sites) -> dict[str, list[dict[str, Any]]]:
    """The lines of every note, by its name."""
    found = sorted((sites.staging / ".notes").glob("*.jsonl"))
    return {note.name: [json.loads(line) for line in note.read_text().splitlines()] for note in found}


def noted_path(line: dict[str, Any]) -> bytes:
    path = line["path"]
    return path.encode() if isinstance(path, str) else base64.b64decode(path["base64"])


def receipt(sites: Sites, name: str, *lines: dict[str, Any]) -> None:
    """What an endpoint manager writes: complete when it appears."""
    place = sites.staging / ".receipts" / name
    temporary = place.with_name(f".{name}.tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    temporary.rename(place)


def said_of(line: dict[str, Any], state: str, at: str) -> dict[str, Any]:
    """The receipt for a line of a note."""
    return {key: line[key] for key in ("path", "digest", "algorithm")} | {"state": state, "at": at}


# Delivery notes


def test_a_note_tells_path_size_digest_and_time_of_every_file(sites: Sites) -> None:
    sites.write_config()
    content = {
        b"night/a b.fits": b"light",
        "größe\n.fits".encode(): b"",
        b"odd \xff\xfe.fits": b"dark",
        b"quote'\"\\.fits": os.urandom(100_000),
    }
    for path, data in content.items():
        write_file(sites.buffer, path, data)
    assert carry_all(sites) == 0
    lines = [line for note in notes(sites).values() for line in note]
    assert {noted_path(line): line["size"] for line in lines} == {
        path: len(data) for path, data in content.items()
    }
    for line in lines:
        path = noted_path(line)
        assert list(line) == ["path", "size", "algorithm", "digest", "sent"]
        assert line["digest"] == hashlib.new(line["algorithm"], content[path]).hexdigest()
        assert isinstance(line["path"], str) is (b"\xff" not in path)
        sent = datetime.fromisoformat(line["sent"])
        assert sent.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - sent) < timedelta(minutes=1)
    assert all(name.startswith("batch-") for name in notes(sites))


def test_a_note_is_in_place_before_the_first_of_its_files_appears(sites: Sites) -> None:
    """One inotify queue keeps the order of what happens in several directories."""
    sites.write_config(general={"chunk_size": 20, "num_threads": 3})
    directory = sites.staging / ".notes"
    directory.mkdir()
    names = [f"{number:03}.fits" for number in range(200)]
    for name in names:
        write_file(sites.buffer, name.encode(), name.encode())
    with INotify() as queue:
        queue.add_watch(directory, flags.MOVED_TO | flags.CLOSE_WRITE | flags.MODIFY | flags.CREATE)
        queue.add_watch(sites.endpoint_buffer, flags.CREATE | flags.MOVED_TO | flags.CLOSE_WRITE)
        assert carry_all(sites) == 0
        happened = [event.name for event in queue.read(timeout=0)]
    written = notes(sites)
    assert len(written) >= 10
    noted = {line["path"]: name for name, lines in written.items() for line in lines}
    assert sorted(noted) == names
    # Once in place, nothing more happens to a note; and a file appears once, whole.
    assert sorted(name for name in happened if not name.startswith(".")) == sorted([*names, *written])
    for name, note in noted.items():
        assert happened.index(note) < happened.index(name)


def test_no_notes_are_written_where_they_are_not_wanted(sites: Sites) -> None:
    sites.write_config(endpoint={"notes": False})
    write_file(sites.buffer, b"a.fits", b"a")
    assert carry_all(sites) == 0
    assert files_below(sites.endpoint_buffer) == {b"a.fits": b"a"}
    assert notes(sites) == {}


def test_what_does_not_arrive_is_in_no_note(sites: Sites) -> None:
    sites.write_config()
    for path in (b"good.fits", b"taken.fits", b"way/blocked.fits"):
        write_file(sites.buffer, path, path)
    write_file(sites.endpoint_buffer, b"taken.fits", b"other content")
    write_file(sites.endpoint_buffer, b"way", b"a file where a directory has to be")
    assert carry_all(sites) == 3
    assert counts(sites) == {"held": 1, "conflict": 1, "failed": 1}
    assert [[line["path"] for line in note] for note in notes(sites).values()] == [["good.fits"]]


def test_a_file_that_has_arrived_unseen_is_in_a_note_whoever_asks_for_it_again(sites: Sites) -> None:
    """With a new ledger everything is delivered again, and found there."""
    sites.write_config()
    write_file(sites.buffer, b"a.fits", b"a")
    assert carry_all(sites) == 0
    sites.ledger.unlink()
    write_file(sites.buffer, b"a.fits", b"a")
    assert carry_all(sites) == 0
    assert "a.fits" in {line["path"] for note in notes(sites).values() for line in note}
    assert sorted(os.listdir(sites.staging)) == [".notes", ".receipts"]


# Receipts


def history(sites: Sites, path: str) -> Any:
    told = json.loads(sites.command("history", sites.config, path, "--json").stdout)
    [version] = told["versions"]
    return version["receipts"]


def test_receipts_are_noted_shown_by_history_and_then_removed(sites: Sites) -> None:
    sites.write_config()
    names = [b"night/a.fits", b"odd \xff.fits"]
    for name in names:
        write_file(sites.buffer, name, name)
    with Run(sites):
        eventually(lambda: counts(sites) == {"held": 2})
        lines = [line for note in notes(sites).values() for line in note]
        receipt(sites, "r-1.jsonl", *(said_of(line, "stored", "2026-07-01T00:00:00Z") for line in lines))
        receipt(sites, "r-2.jsonl", *(said_of(line, "ingested", "2026-07-01T00:00:05.5Z") for line in lines))
        write_file(sites.buffer, b"next.fits", b"next")
        eventually(lambda: rows(sites, "SELECT count(*) FROM receipts") == [(4,)])
        write_file(sites.buffer, b"last.fits", b"last")
        eventually(lambda: not os.listdir(sites.staging / ".receipts"))
    assert [(told["state"], told["at"]) for told in history(sites, "night/a.fits")] == [
        ("stored", "2026-07-01T00:00:00.000Z"),
        ("ingested", "2026-07-01T00:00:05.500Z"),
    ]
    shown = sites.command("history", sites.config, "night/a.fits").stdout.decode()
    assert "ingested" in shown


def test_receipts_are_collected_when_there_is_nothing_to_deliver(sites: Sites) -> None:
    sites.write_config()
    write_file(sites.buffer, b"a.fits", b"a")
    assert carry_all(sites) == 0
    [[line]] = notes(sites).values()
    receipt(sites, "r.jsonl", said_of(line, "stored", "2026-07-01T00:00:00Z"))
    assert carry_all(sites) == 0
    assert [told["state"] for told in history(sites, "a.fits")] == ["stored"]


def test_receipts_of_others_are_left_alone_and_hold_up_none_of_ours(sites: Sites) -> None:
    sites.write_config()
    (sites.staging / ".receipts").mkdir()
    foreign = {"algorithm": "sha256", "state": "stored", "at": "2026-07-01T00:00:00Z"}
    for number in range(250):
        line = foreign | {"path": f"{number}", "digest": f"{number:064x}"}
        receipt(sites, f"a-{number:03}.jsonl", line)
    (sites.staging / ".receipts" / "a-nonsense.jsonl").write_text("{}\n")
    write_file(sites.buffer, b"a.fits", b"a")
    with Run(sites) as manager:
        eventually(lambda: counts(sites) == {"held": 1})
        [[line]] = notes(sites).values()
        receipt(sites, "z-mine.jsonl", said_of(line, "stored", "2026-07-01T00:00:00Z"))
        other = said_of(line, "ingested", "2026-07-01T00:00:01Z") | {"digest": "0" * 64}
        receipt(sites, "z-mixed.jsonl", said_of(line, "ingested", "2026-07-01T00:00:01Z"), other)
        for number in range(3):
            write_file(sites.buffer, b"%d.fits" % number, b"next")
            eventually(lambda number=number: counts(sites) == {"held": number + 2})  # type: ignore[misc]
        assert [told["state"] for told in history(sites, "a.fits")] == ["stored", "ingested"]
        assert manager.said.count("they are left alone") <= 4
    left = {path.name for path in (sites.staging / ".receipts").iterdir()}
    assert left == {*(f"a-{number:03}.jsonl" for number in range(250)), "a-nonsense.jsonl", "z-mixed.jsonl"}


# With an endpoint manager


def test_what_the_endpoint_manager_did_comes_back_as_receipts(sites: Sites) -> None:
    sites.write_config()
    archive = Archive(sites.directory / "endpoint")
    archive.write_config()
    content = {b"a.dat": b"light", b"odd \xff/b.dat": os.urandom(100_000)}
    for path, data in content.items():
        write_file(sites.buffer, path, data)
    assert carry_all(sites) == 0
    assert archive.once() == 0
    assert files_below(archive.storage) == content
    assert notes(sites) == {}
    assert carry_all(sites) == 0
    told = rows(sites, "SELECT path, receipts.state FROM receipts JOIN files ON files.id = file_id")
    assert sorted(told) == sorted((path, state) for path in content for state in ("stored", "ingested"))
    # Those that have been noted are removed at the next visit.
    assert carry_all(sites) == 0
    assert list((sites.staging / ".receipts").iterdir()) == []
