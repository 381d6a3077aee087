"""What every catalogue must do, ours or a third party's, each in the process that the manager gives it."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.process import Background
from endpoint.catalogues.contract import Request, Verdict
from endpoint.catalogues.host import Host
from tests.catalogues import HOSTILE_NAMES, KINDS, Kind, request

SUCCESS = {Verdict.INGESTED, Verdict.ALREADY}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    found = request.param
    assert isinstance(found, Kind)
    return found


@contextmanager
def hosted(kind: Kind, directory: Path, environment: dict[str, str] | None = None) -> Iterator[Host]:
    """A catalogue in its process; to be told its environment again where it is started a second time."""
    env = kind.environment(directory) if environment is None else environment
    with Host(kind.source, kind.config(directory), timeout=60, env=env) as host:
        yield host


def files(kind: Kind, directory: Path, count: int) -> list[Request]:
    """Files with plain names."""
    names = [b"night/%03d" % number + kind.suffix for number in range(count)]
    return written(kind, directory, names)


def written(kind: Kind, directory: Path, names: list[bytes]) -> list[Request]:
    return [
        request(directory / "storage", name, kind.content(number), number=number)
        for number, name in enumerate(names, 1)
    ]


def assert_each_once(kind: Kind, directory: Path, asked: list[Request]) -> None:
    """All files are in the catalogue, none of them twice."""
    if kind.names(directory) or not kind.is_forgetful:
        assert Counter(kind.names(directory)) == Counter(one.name for one in asked)


def test_each_request_has_one_result(kind: Kind, tmp_path: Path) -> None:
    asked = files(kind, tmp_path, 5)
    with hosted(kind, tmp_path) as host:
        found = [(result.id, result.verdict) for result in host.ingest(asked)]
    assert sorted(found) == [(number, Verdict.INGESTED) for number in range(1, 6)]
    assert_each_once(kind, tmp_path, asked)


def test_hostile_names_arrive_as_they_are(kind: Kind, tmp_path: Path) -> None:
    asked = written(kind, tmp_path, [name + kind.suffix for name in HOSTILE_NAMES])
    impossible = [one for one in asked if kind.goes_by_headers and b"\xff" in one.name]
    with hosted(kind, tmp_path) as host:
        found = {result.id: result.verdict for result in host.ingest(asked)}
    assert found == {one.id: Verdict.INVALID if one in impossible else Verdict.INGESTED for one in asked}
    assert_each_once(kind, tmp_path, [one for one in asked if one not in impossible])


def test_to_ingest_once_more_is_harmless(kind: Kind, tmp_path: Path) -> None:
    asked = files(kind, tmp_path, 4)
    with hosted(kind, tmp_path) as host:
        list(host.ingest(asked[:2]))
        found = {result.id: result.verdict for result in host.ingest(asked)}
    known = Verdict.INGESTED if kind.is_forgetful else Verdict.ALREADY
    assert found == {1: known, 2: known, 3: Verdict.INGESTED, 4: Verdict.INGESTED}
    assert_each_once(kind, tmp_path, asked)


def test_other_content_under_a_known_name_is_a_conflict(kind: Kind, tmp_path: Path) -> None:
    first = written(kind, tmp_path, [b"same" + kind.suffix])
    with hosted(kind, tmp_path) as host:
        list(host.ingest(first))
        other = [request(tmp_path / "storage", b"same" + kind.suffix, kind.content(2), number=1)]
        [result] = host.ingest(other)
    if kind.goes_by_headers:  # it is another observation; storage sees to it that no path gets other content
        assert result.verdict is Verdict.INGESTED
        assert_each_once(kind, tmp_path, first + other)
        return
    assert result.verdict is (Verdict.INGESTED if kind.is_forgetful else Verdict.CONFLICT)
    assert_each_once(kind, tmp_path, first)


@pytest.mark.parametrize("delay", [0.0, 0.03])
def test_a_kill_in_the_middle_of_a_batch_costs_nothing(kind: Kind, tmp_path: Path, delay: float) -> None:
    asked = files(kind, tmp_path, 20)
    with hosted(kind, tmp_path) as host:
        host.open()
        with Background(["sh", "-c", f"sleep {delay}; kill -9 {host.pid}"]):
            found = {result.id: result.verdict for result in host.ingest(asked)}
    assert (set(found), set(found.values()) - SUCCESS) == ({one.id for one in asked}, set())
    assert_each_once(kind, tmp_path, asked)


def test_a_batch_that_was_killed_can_be_repeated(kind: Kind, tmp_path: Path) -> None:
    """As after the death of the manager: nobody knows what the catalogue has done."""
    asked = files(kind, tmp_path, 20)
    environment = dict(kind.environment(tmp_path))
    with hosted(kind, tmp_path, environment) as host:
        next(host.ingest(asked))
    with hosted(kind, tmp_path, environment) as host:
        found = {result.id: result.verdict for result in host.ingest(asked)}
    assert (set(found), set(found.values()) - SUCCESS) == ({one.id for one in asked}, set())
    assert_each_once(kind, tmp_path, asked)


def test_its_version_is_told_before_it_is_opened(kind: Kind, tmp_path: Path) -> None:
    with hosted(kind, tmp_path) as host:
        assert host.version()
    assert not (tmp_path / "catalogue.db").exists()


def test_it_goes_when_it_is_asked_to(kind: Kind, tmp_path: Path) -> None:
    with hosted(kind, tmp_path) as host:
        list(host.ingest(files(kind, tmp_path, 1)))
        began = time.monotonic()
        pid = host.pid
        host.close(patience=60)
        assert time.monotonic() - began < 60
    assert not os.path.exists(f"/proc/{pid}")
