"""What is said of the endpoint is what is known of it last."""

from common.errors import Failure, Scope
from common.remote import ENDPOINT_FULL
from common.room import Room
from handoff.outlook import Outlook
from handoff.survey import Directory, Survey

REFUSED = Failure(Scope.CONNECTION, "connection refused", "port 22: Connection refused")
FULL = Failure(Scope.ENDPOINT, ENDPOINT_FULL, "No space left on device")


def _well() -> Survey:
    place = Directory(Room(10**12, 10**12, None, None), writable=True, device=1)
    return Survey({}, frozenset(), 0.0, 0.0, place, place, hard_links=True, cleared=(), problems=())


def test_nothing_keeps_files_once_a_look_has_found_it_over() -> None:
    for failure, state in ((REFUSED, "unreachable"), (FULL, "unknown")):
        outlook = Outlook(0)
        outlook.fail(failure, 0.0)
        assert (outlook.failure, outlook.state) == (failure, state)
        outlook.looked(_well(), 10.0)
        assert (outlook.failure, outlook.state) == (None, "reachable")


def test_what_only_sending_shows_is_told_until_a_file_has_arrived() -> None:
    outlook = Outlook(0)
    for now in (0.0, 20.0):
        outlook.fail(FULL, now)
        outlook.looked(_well(), now + 10)
    assert outlook.failure == FULL
    outlook.succeed()
    assert outlook.failure is None
