"""Files that change under the manager's eyes: each is told as what it is, and delays nobody else."""

import os
import shlex
from pathlib import Path

import pytest

from common.process import Background
from tests.loopback import Sites, Sshd, files_below, write_file
from tests.runs import Run, counts, digests, eventually, holding_elsewhere, leftovers, rows, stand_in, states

# What happens to a file while the batch in which it rides is on its way, and how that is told.
_CHANGES = {
    "vanish": ("rm vanish", "left the buffer"),
    "shrink": ("truncate -s 100 shrink", "shrank"),
    "grow": ("printf more >>grow", "grew"),
    "replace": ("printf 'another file' >r.tmp; mv r.tmp replace", "was replaced"),
    "overwrite": ("printf new | dd of=overwrite conv=notrunc status=none", "was written to"),
    "touch": ("chmod 600 touch", "was touched"),
    "directory": ("mkdir d; rm directory; mv d directory; printf below >directory/below", "was replaced"),
    "nested/file": ("rm -r nested; printf 'no directory' >nested", "left the buffer"),
    "link": ("ln -s good l; mv l link", "was replaced"),
}
_STRAIGHT = ["found", "sending", "delivered", "holding", "held"]
_AGAIN = ["found", "sending", "vanished", *_STRAIGHT]


@pytest.mark.parametrize("transfer", ["rsync", "scp"])
@pytest.mark.parametrize(
    "script",
    ['change; exec "$real" "$@"', '"$real" "$@"; code=$?; change; exit $code'],
    ids=["before it is sent", "after it was sent"],
)
def test_a_file_that_changes_on_its_way_is_told_as_that_and_delays_nobody(
    sites: Sites, tmp_path: Path, script: str, transfer: str
) -> None:
    changes = "; ".join(change for change, _ in _CHANGES.values())
    buffer = shlex.quote(str(sites.buffer))
    once = f"change() (cd {buffer} && mkdir ../changed 2>/dev/null && {{ {changes}; }})\n"
    environment = stand_in(tmp_path / "bin", transfer, once + script)
    sites.write_config(endpoint={"transfer": transfer})
    before = {name: os.urandom(5000) for name in [*_CHANGES, "good"]}
    for name, content in before.items():
        write_file(sites.buffer, name.encode(), content)
    with Run(sites, "--once", env=environment) as run:
        assert run.process.wait(30) == 0, run.said
    after = {
        b"good": before["good"],
        b"shrink": before["shrink"][:100],
        b"grow": before["grow"] + b"more",
        b"replace": b"another file",
        b"overwrite": b"new" + before["overwrite"][3:],
        b"touch": before["touch"],
        b"directory/below": b"below",
        b"nested": b"no directory",
    }
    assert files_below(sites.endpoint_buffer) == after
    assert files_below(sites.holding) == after
    assert files_below(sites.buffer) == {}
    assert leftovers(sites) == []
    assert _told(sites) == {
        name.encode(): f"{change} while it was being delivered" for name, (_, change) in _CHANGES.items()
    }
    assert _stories(sites) == {
        **{name.encode(): _AGAIN for name in _CHANGES},
        **dict.fromkeys((b"vanish", b"directory", b"link", b"nested/file"), _AGAIN[:3]),
        **dict.fromkeys((b"good", b"directory/below", b"nested"), _STRAIGHT),
    }


@pytest.mark.parametrize("transfer", ["auto", "rsync"])
@pytest.mark.parametrize("name", ["vanish", "grow", "replace"])
def test_a_big_file_that_changes_while_it_is_hashed_and_sent_is_told_as_that(
    sites: Sites, name: str, transfer: str
) -> None:
    change, told = _CHANGES[name]
    staged = f"{shlex.quote(str(sites.staging))}/batch-*/{name}"
    watch = f"until [ -s {staged} ]; do sleep 0.01; done; cd {shlex.quote(str(sites.buffer))} && {change}"
    sites.write_config(endpoint={"transfer": transfer}, general={"bandwidth": "100MB/s", "num_threads": 1})
    content = os.urandom(40_000_000)
    write_file(sites.buffer, name.encode(), content)
    with Background(["sh", "-c", watch]), Run(sites, "--once") as run:
        assert run.process.wait(30) == 0, run.said
    after = {"vanish": {}, "grow": {b"grow": content + b"more"}, "replace": {b"replace": b"another file"}}[
        name
    ]
    assert digests(files_below(sites.endpoint_buffer)) == digests(after)
    assert digests(files_below(sites.holding)) == digests(after)
    assert leftovers(sites) == []
    assert _told(sites) == {name.encode(): f"{told} while it was being delivered"}


def test_a_file_that_changes_once_it_has_arrived_is_another_version(tmp_path: Path) -> None:
    names = ("vanish", "shrink", "grow", "replace", "overwrite", "touch")
    changes = "; ".join(_CHANGES[name][0] for name in names)
    buffer = shlex.quote(str(tmp_path / "sites" / "handoff" / "buffer"))
    script = f'"$real" "$@"; case $3 in */buffer/) cd {buffer} && mkdir ../changed && {{ {changes}; }};; esac'
    with Sshd(tmp_path / "sshd", environment=stand_in(tmp_path / "bin", "cp", script)) as sshd:
        sites = Sites(tmp_path / "sites", sshd)
        sites.write_config()
        first = {name.encode(): os.urandom(5000) for name in (*names, "good")}
        for path, content in first.items():
            write_file(sites.buffer, path, content)
        assert sites.command("start", sites.config, "--once").exit_code == 3
    assert files_below(sites.endpoint_buffer) == first
    assert files_below(sites.holding) == {name: first[name] for name in (b"good", b"touch")}
    assert sorted(files_below(sites.buffer)) == [b"grow", b"overwrite", b"replace", b"shrink"]
    assert {name: states(sites, name.encode()) for name in (*names, "good")} == {
        "vanish": ["vanished"],
        "shrink": ["vanished", "conflict"],
        "grow": ["vanished", "conflict"],
        "replace": ["vanished", "conflict"],
        "overwrite": ["vanished", "conflict"],
        "touch": ["held"],
        "good": ["held"],
    }
    assert _told(sites) == {
        name.encode(): f"delivered, but {_CHANGES[name][1]} before it could be held" for name in names
    }


def test_a_file_that_is_held_open_waits_for_its_writer_and_delays_nobody(sites: Sites) -> None:
    sites.write_config()
    with open(write_file(sites.buffer, b"slow"), "ab", buffering=0) as file, Run(sites) as run:
        for number in range(3):
            file.write(b"part %d\n" % number)
            name = b"quick %d" % number
            write_file(sites.buffer, name, name)
            eventually(lambda name=name: states(sites, name) == ["held"])  # type: ignore[misc]
        assert states(sites, b"slow") == []
        file.close()
        eventually(lambda: states(sites, b"slow") == ["held"])
        assert run.stop() == 0
    assert files_below(sites.endpoint_buffer)[b"slow"] == b"part 0\npart 1\npart 2\n"


@pytest.mark.parametrize(("more", "ends"), [(b"", ["held"]), (b" and more", ["vanished", "conflict"])])
def test_a_file_that_is_opened_again_before_it_is_held_stays_until_it_is_closed(
    tmp_path: Path, more: bytes, ends: list[str]
) -> None:
    opened = tmp_path / "opened"
    # Once it has been placed at the endpoint, which the manager is not to know before we say so.
    script = f'"$real" "$@"; case $(pwd) in */buffer) until [ -e {opened} ]; do sleep 0.01; done;; esac'
    with Sshd(tmp_path / "sshd", environment=stand_in(tmp_path / "bin", "sync", script)) as sshd:
        sites = Sites(tmp_path / "sites", sshd)
        sites.write_config()
        name = write_file(sites.buffer, b"a", b"first")
        with Run(sites) as run:
            eventually(lambda: files_below(sites.endpoint_buffer))
            with open(name, "ab") as file:
                opened.touch()
                eventually(lambda: states(sites, b"a") == ["vanished"])
                assert _told(sites) == {b"a": "delivered, but was opened for writing before it could be held"}
                file.write(more)
            eventually(lambda: states(sites, b"a") == ends)
            assert run.stop() == 0
    assert files_below(sites.endpoint_buffer) == {b"a": b"first"}
    assert files_below(sites.buffer if more else sites.holding) == {b"a": b"first" + more}


def test_a_file_that_changes_while_it_is_copied_to_holding_is_not_held_as_what_was_delivered(
    sites: Sites,
) -> None:
    with holding_elsewhere(sites) as copying:
        sites.write_config()
        first = os.urandom(40_000_000)
        path = write_file(sites.buffer, b"a", first)
        with Run(sites) as run:
            assert copying(), run.said
            with open(path, "ab") as file:
                file.write(b" and more")
            eventually(lambda: states(sites, b"a") == ["vanished", "conflict"])
            assert run.stop() == 0
        assert digests(files_below(sites.endpoint_buffer)) == digests({b"a": first})
        assert digests(files_below(sites.buffer)) == digests({b"a": first + b" and more"})
        assert files_below(sites.holding) == {}


def test_an_unreadable_file_is_told_as_that_and_delivered_once_it_can_be_read(sites: Sites) -> None:
    sites.write_config()
    write_file(sites.buffer, b"good", b"good")
    locked = write_file(sites.buffer, b"locked", b"locked", mode=0)
    with Run(sites, powerless=True) as run:
        eventually(lambda: counts(sites) == {"held": 1, "failed": 1})
        [(cause, reason)] = rows(sites, "SELECT cause, reason FROM files WHERE state = 'failed'")
        assert (cause, reason) == ("can't be read", "locked can't be read: Permission denied")
        os.chmod(locked, 0o644)
        eventually(lambda: counts(sites) == {"held": 2})
        assert run.stop() == 0
    assert files_below(sites.endpoint_buffer) == {b"good": b"good", b"locked": b"locked"}


def test_a_file_that_leaves_while_the_endpoint_is_away_is_told_when_it_is_back(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd") as sshd:
        sites = Sites(tmp_path / "sites", sshd)
        sites.write_config()
        sshd.stop()
        stays, goes = (write_file(sites.buffer, name, name) for name in (b"stays", b"goes"))
        with Run(sites) as run:
            eventually(lambda: counts(sites) == {"found": 2})
            os.unlink(goes)
            sshd.start()
            eventually(lambda: counts(sites) == {"held": 1, "vanished": 1})
            assert run.stop() == 0
        assert not os.path.exists(stays)
        assert states(sites, b"goes") == ["vanished"]


def _told(sites: Sites) -> dict[bytes, str]:
    """Why each file that was not there any more, or not as it had been, was let go."""
    query = "SELECT path, history.reason FROM history JOIN files ON id = file_id WHERE target = 'vanished'"
    return dict(rows(sites, query))


def _stories(sites: Sites) -> dict[bytes, list[str]]:
    """The states that each file has gone through."""
    stories: dict[bytes, list[str]] = {}
    for path, state in rows(
        sites, "SELECT path, target FROM history JOIN files ON id = file_id ORDER BY file_id, seq"
    ):
        stories.setdefault(path, []).append(state)
    return stories
