"""How the demo ends: everything is compared end to end, the catalogue is asked, and one file is followed."""

import hashlib
import os
import shlex
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.loopback import REPOSITORY
from tests.runs import Managed, rows
from tests.stage import Night, Stage, say, status


@dataclass(frozen=True, slots=True)
class Record:
    """A file as the catalogue knows it."""

    name: bytes
    """Below the storage."""
    instrument: str
    exposure: int
    detector: int
    filter: str


def tell(stage: Stage, happened: Night) -> int:
    """Say what came of it and where it lies; 0 only if every file arrived intact and was ingested."""
    sites, archive = stage.sites, stage.archive
    stored, held = _digests(archive.storage), _digests(sites.holding)
    records = _records(stage)
    names = Counter(record.name for record in records)
    catalogued = {name: digest for name, digest in stored.items() if names[name] == 1}
    left = len(_digests(sites.buffer)) + len(_digests(sites.endpoint_buffer))
    good = stored == held == catalogued == happened.digests and not left and len(records) == len(stored)
    say(f"""
written     {len(happened.digests)} files, {happened.size / 1e6:.1f} MB
delivered   {_same(stored, happened)} are in the endpoint's storage, digests compared
held        {_same(held, happened)} are in holding, digests compared; {left} left in the buffers
ingested    {_same(catalogued, happened)} are in the catalogue, each once
ledgers     hdfmgr: {_counts(sites)}; endmgr: {_counts(archive)}
{_fate(happened)}
result      {"every file arrived intact, and was ingested once" if good else "NOT every file arrived"}""")
    _tell_catalogue(stage, records)
    if happened.digests:
        _follow(stage, happened, records, next(iter(happened.digests)))
    _tell_places(stage, happened)
    return 0 if good else 1


def _tell_catalogue(stage: Stage, records: Iterable[Record]) -> None:
    where = stage.repository if stage.catalogue == "butler" else stage.archive.catalogue
    say(f"\nThe catalogue, {where}, was asked what there is of the night:")
    exposures = Counter((record.instrument, record.exposure, record.filter) for record in records)
    for (instrument, exposure, band), detectors in sorted(exposures.items()):
        say(f"  {instrument}, exposure {exposure}, filter {band}: {detectors} detectors")


def _follow(stage: Stage, happened: Night, records: Iterable[Record], path: bytes) -> None:
    """Tell one file's way, from the digest of its origin to its row in the catalogue."""
    sent = "SELECT hex(digest), changed_at FROM files WHERE path = ? AND state = 'held'"
    arrived = "SELECT hex(digest), changed_at FROM files WHERE path = ? AND state = 'ingested'"
    noted = "SELECT hex(digest), sent_at FROM origins WHERE path = ?"
    record = next((record for record in records if record.name == path), None)
    stored = stage.archive.storage / os.fsdecode(path)
    now = hashlib.sha256(stored.read_bytes()).hexdigest() if stored.exists() else "nothing".ljust(64)
    say(f"""
The way of one file, {os.fsdecode(path)}, by its digests:
  {happened.digests[path]}  as the instrument wrote it
  {_digest(stage.sites, sent, path)}  sent by hdfmgr, and held
  {_digest(stage.archive, noted, path)}  in the delivery note, as its origin
  {_digest(stage.archive, arrived, path)}  verified by endmgr, stored and ingested
  {now}  read from storage just now
  its row in the catalogue: {_row(record)}""")


def _row(record: Record | None) -> str:
    if record is None:
        return "none"
    return (
        f"{record.instrument}, exposure {record.exposure}, detector {record.detector}, filter {record.filter}"
    )


def _digest(managed: Managed, query: str, path: bytes) -> str:
    """The digest that a ledger has for a path, with when; what is no sha256 is told as that."""
    for digest, at in rows(managed, query, path):
        when = datetime.fromtimestamp(at / 1000, UTC).strftime("%H:%M:%S UTC")
        return f"{digest.lower()}  {when}"
    return "nothing".ljust(64)


def _tell_places(stage: Stage, happened: Night) -> None:
    (hdfmgr, here), (endmgr, there) = (
        (shlex.quote(str(REPOSITORY / ".venv/bin" / program)), shlex.quote(str(config)))
        for program, (_, config) in zip(("hdfmgr", "endmgr"), stage.managers, strict=True)
    )
    example = os.fsdecode(next(iter(happened.digests), b""))
    query = (
        f"  {REPOSITORY / '.venv/bin/butler'} query-datasets {stage.repository} raw"
        if stage.catalogue == "butler"
        else f"  sqlite3 {stage.archive.catalogue} 'SELECT name, exposure, detector FROM files'"
    )
    say(f"""
Everything lies in {stage.sites.directory}:
  handoff/buffer, handoff/holding, endpoint/staging, endpoint/buffer, endpoint/storage
Look at it:
  {hdfmgr} status {here}
  {endmgr} status {there}
  {endmgr} history {there} {example}
{query}
  less {stage.sites.directory}/handoff/hdfmgr.log {stage.sites.directory}/endpoint/endmgr.log
Remove it:
  rm -r {stage.sites.directory}""")


def _records(stage: Stage) -> list[Record]:
    if stage.catalogue == "butler":
        return _butler_records(stage)
    if not stage.archive.catalogue.exists():
        return []
    query = "SELECT name, instrument, exposure, detector, physical_filter FROM files"
    with closing(sqlite3.connect(f"file:{stage.archive.catalogue}?mode=ro", uri=True)) as connection:
        return [Record(os.fsencode(name), *rest) for name, *rest in connection.execute(query)]


def _butler_records(stage: Stage) -> list[Record]:
    """Asked of a real Butler, by its own interface."""
    from lsst.daf.butler import Butler  # type: ignore[import-not-found,import-untyped,unused-ignore]

    butler = Butler.from_config(str(stage.repository))
    refs = butler.query_datasets("raw", collections="*", find_first=False, explain=False)
    root = os.fsencode(stage.archive.storage)
    return [
        Record(
            os.path.relpath(os.fsencode(butler.getURI(ref).ospath), root),
            str(data["instrument"]),
            int(data["exposure"]),
            int(data["detector"]),
            str(data["physical_filter"]),
        )
        for ref in refs
        for data in [butler.registry.expandDataId(ref.dataId)]
    ]


def _fate(happened: Night) -> str:
    if happened.killed is None:
        return "killed      nobody: that takes two exposures"
    return (
        f"killed      manager {happened.killed}, by SIGKILL; manager {happened.resumed_by} resumed by itself"
    )


def _counts(managed: Managed) -> str:
    found = status(managed).files
    return ", ".join(f"{count} {state}" for state, count in found.items() if count) or "empty"


def _digests(root: Path) -> dict[bytes, str]:
    return {
        os.fsencode(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def _same(found: dict[bytes, str], happened: Night) -> str:
    same = len(found.items() & happened.digests.items())
    return f"{same} of {len(happened.digests)}"
