"""What every test may ask for."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.archive import Archive
from tests.loopback import Sites, Sshd

# So that what their assertions compare is shown.
pytest.register_assert_rewrite("tests.ledgers", "tests.runs", "tests.troubles")

# No test asserts a time: a machine may be busy.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# What is started in the background, or by nohup, is deaf to these, and so would be all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A running sshd, shared: stop, pause and re-key only one of your own."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def sites(tmp_path: Path, sshd: Sshd) -> Sites:
    """Two empty sites, joined by the shared sshd."""
    return Sites(tmp_path / "sites", sshd)


@pytest.fixture(params=["handoff", "endpoint"])
def managed(request: pytest.FixtureRequest, tmp_path: Path) -> Sites | Archive:
    """Each of the two managers, configured."""
    found: Sites | Archive
    if request.param == "handoff":
        found = Sites(tmp_path / "sites", request.getfixturevalue("sshd"))
    else:
        found = Archive(tmp_path / "archive")
    found.write_config()
    return found


@pytest.fixture(scope="session")
def disks() -> None:
    """What is mounted from here on is seen by this process and its children alone, and goes with them."""
    # Not above: its assertions are to be rewritten.
    from tests.troubles import own_mounts

    if not own_mounts():
        pytest.skip("disks of one's own need the right to mount: run this as root")
