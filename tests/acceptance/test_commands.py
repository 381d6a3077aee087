"""What an operator types, and what comes of it, where no manager needs to run."""

import json
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from common.app import run
from common.clock import now_ms
from common.entry import Done, Failed, Outcome, Report
from common.errors import Failure, Scope
from common.files import Checksum, Fence
from common.ledger.ledger import Ledger
from common.ledger.lock import holder
from common.ledger.rows import Found, ManagerRow
from common.process import run as run_program
from handoff.cli import kind
from handoff.lifecycle import LIFECYCLE, SEND
from tests.loopback import REPOSITORY, Sites, write_file
from tests.runs import eventually

Hdfmgr = Callable[..., tuple[int, str, str]]
"""Runs a command line; gives its exit code, standard output and standard error."""
ODD = b"odd \xff\n'name'.fits"


@pytest.fixture
def hdfmgr(capsys: pytest.CaptureFixture[str]) -> Hdfmgr:
    """The command in this very process, which saves its start."""

    def command(*words: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run(kind(), [str(word) for word in words])
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    return command


def _fill(sites: Sites, names: Sequence[bytes] = (b"night/a.fits", b"night/b.fits", ODD)) -> int:
    """Enter files; the first fails and waits, the second is in conflict, the rest is delivered."""
    now = now_ms()
    with Ledger.open(sites.ledger, LIFECYCLE) as ledger:
        ledger.record(
            [Found(name, Fence(at, 100, at, at)) for at, name in enumerate(names, 1)], now_ms=now - 60_000
        )
        batch = ledger.claim(SEND, limit=100, max_bytes=10_000, worker=0, now_ms=now - 50_000)
        assert batch is not None
        failure = Failure(Scope.FILE, "can't be read", "night/a.fits can't be read: Permission denied")
        outcomes: list[Outcome] = []
        for entry in batch.entries:
            checksum = Checksum("sha256", f"{entry.id:064x}")
            if entry.path == names[0]:
                outcomes.append(Failed(entry.id, failure))
            elif entry.path == names[1]:
                outcomes.append(Done(entry.id, "conflict", checksum, reason="other content is there"))
            else:
                outcomes.append(Done(entry.id, SEND.target, checksum))
        report = Report(tuple(outcomes), {"hash": 0.1, "send": 2.5}, 300, 23, "rsync: some files")
        ledger.finish(batch, report, backoff=lambda _: 3_600.0, now_ms=now - 40_000)
        ledger.beat(ManagerRow(2**22 + 1, "here", "0.1.0", now - 60_000, now - 30_000))
    return now


# Completion


@pytest.mark.parametrize(
    ("shell", "environment", "told"),
    [
        ("bash", {"COMP_WORDS": "hdfmgr st", "COMP_CWORD": "1"}, "start\nstop\nstatus"),
        ("bash", {"COMP_WORDS": "hdfmgr status --w", "COMP_CWORD": "2"}, "--watch"),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "hdfmgr hist", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
            "history\t",
        ),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "hdfmgr hist"}, '"history":'),
    ],
)
def test_shell_completion_works(sites: Sites, shell: str, environment: dict[str, str], told: str) -> None:
    done = sites.command(env={"_HDFMGR_COMPLETE": f"complete_{shell}", **environment})
    assert done.exit_code == 0
    assert told in done.stdout.decode()


# Errors


def test_a_broken_configuration_is_exit_10_with_a_line_each(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config(handoff={"bufer": "/x"}, general={"pause": "soon"})
    for verb in ("validate", "start", "status", "stop", "initdb"):
        code, out, err = hdfmgr(verb, config)
        assert (code, out) == (10, ""), verb
        assert len(re.findall(rf"{re.escape(str(config))}:\d+: \S+: ", err)) == 2
        assert "  hint: " in err
        assert "Traceback" not in err


@pytest.mark.parametrize("args", [("--debug", "validate"), ("validate", "--debug")])
def test_a_traceback_is_shown_only_where_it_is_asked_for(
    hdfmgr: Hdfmgr, sites: Sites, args: tuple[str, ...]
) -> None:
    code, _, err = hdfmgr(*args, sites.directory / "nowhere.yaml")
    assert code == 10
    assert "Traceback" in err


@pytest.mark.parametrize("verb", ["status", "initdb", "retry"])
def test_a_file_that_is_no_ledger_is_exit_11_and_left_alone(hdfmgr: Hdfmgr, sites: Sites, verb: str) -> None:
    config = sites.write_config()
    sites.ledger.write_bytes(b"not a database, by any means" * 100)
    code, out, err = hdfmgr(verb, config)
    assert (code, out) == (11, "")
    assert "  hint: " in err
    assert sites.ledger.read_bytes() == b"not a database, by any means" * 100


def test_a_fault_of_the_program_is_one_line_and_what_to_do(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites)
    # A view in the place of a table is what no version of the program ever makes.
    with sqlite3.connect(sites.ledger) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE totals(x)' WHERE name = 'totals'")
    code, out, err = hdfmgr("status", config)
    assert code in (1, 11)
    assert out == ""
    assert "hint: " in err
    assert "Traceback" not in err


def test_a_reader_that_goes_away_is_no_error(sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites)
    script = 'set -o pipefail; "$@" | head -c 1; exit "${PIPESTATUS[0]}"'
    for verb, *options in (
        ("status",),
        ("status", "--json"),
        ("status", "--failed"),
        ("status", "--failed", "--json"),
        ("history", "night/a.fits"),
        ("validate",),
    ):
        args = [verb, str(config), *options]
        done = run_program(
            ["bash", "-c", script, "bash", *sites._argv(tuple(args))], cwd=REPOSITORY, timeout=20
        )
        assert done.stderr == b"", verb
        assert done.exit_code == 0, verb


# validate, initdb


def test_validate_says_that_all_is_well_or_shows_the_whole_configuration(
    hdfmgr: Hdfmgr, sites: Sites
) -> None:
    config = sites.write_config()
    assert hdfmgr("validate", config) == (0, f"{config}: is valid\n", "")
    shown = hdfmgr("validate", config, "--show")[1]
    again = sites.directory / "again.yaml"
    again.write_text(shown)
    assert hdfmgr("validate", again) == (0, f"{again}: is valid\n", "")
    assert hdfmgr("validate", again, "--show")[1] == shown


def test_validate_tells_of_a_log_that_has_no_place(hdfmgr: Hdfmgr, sites: Sites) -> None:
    logs = sites.directory / "logs"
    config = sites.write_config(logging={"file": str(logs / "handoff.log")})
    note = f"logging.file: there is no directory {logs}; until that is mended messages go to standard error"
    assert hdfmgr("validate", config) == (0, f"{config}: {note}\n{config}: is valid\n", "")
    assert not logs.exists()
    logs.mkdir()
    assert hdfmgr("validate", config) == (0, f"{config}: is valid\n", "")


def test_initdb_creates_the_ledger_and_leaves_one_alone(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    assert hdfmgr("initdb", config) == (0, f"{sites.ledger}: created\n", "")
    _fill(sites)
    assert hdfmgr("initdb", config) == (0, f"{sites.ledger}: is there already\n", "")
    assert json.loads(hdfmgr("status", config, "--json")[1])["states"]["failed"]["files"] == 1


# status


def test_status_without_a_ledger_says_so_and_makes_none(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    code, out, _ = hdfmgr("status", config)
    assert code == 0
    assert "never started with the ledger" in out
    told = json.loads(hdfmgr("status", config, "--json")[1])
    assert told["manager"]["running"] is False
    assert told["states"] == {state: {"files": 0, "bytes": 0} for state in LIFECYCLE.states}
    assert not sites.ledger.exists()


def test_status_of_a_dead_manager_tells_since_when_and_what_is_in_trouble(
    hdfmgr: Hdfmgr, sites: Sites
) -> None:
    config = sites.write_config()
    _fill(sites)
    code, out, err = hdfmgr("status", config)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert re.search(r"● not running for 3\d s", out)
    assert re.search(r"^ failed +1 +100 B", out, re.MULTILINE)
    assert re.search(r"1 +failed +can't be read +in 59 min", out)
    assert re.search(r"1 +conflict +.*on `retry`", out)
    told = json.loads(hdfmgr("status", config, "--json")[1])
    assert told["failures"][0]["example"] == "night/b.fits"
    assert told["oldest_waiting_seconds"] >= 60


def test_status_names_odd_paths_safely_and_exactly(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites, (ODD, b"b"))
    assert "$'odd \\xff\\n\\'name\\'.fits'" in hdfmgr("status", config)[1]
    told = json.loads(hdfmgr("status", config, "--json")[1])
    by_state = {failure["state"]: failure["example"] for failure in told["failures"]}
    assert by_state["failed"] == {"base64": "b2RkIP8KJ25hbWUnLmZpdHM="}


def test_status_on_a_terminal_is_drawn_in_its_width_and_without_colour_where_none_is_wanted(
    sites: Sites,
) -> None:
    config = sites.write_config()
    _fill(sites)
    command = " ".join(sites._argv(("status", str(config))))
    for environment, colour in (({}, True), ({"NO_COLOR": "1"}, False)):
        done = run_program(
            ["script", "-qec", f"stty cols 80; {command}", "/dev/null"],
            env={"TERM": "xterm-256color", "COLUMNS": "", **environment},
            cwd=REPOSITORY,
            timeout=20,
        )
        text = done.stdout.decode()
        assert done.exit_code == 0
        assert ("\x1b[1;31m" in text) is colour
        assert re.search(r"\x1b\[[0-9;]*3[0-7]m", text) is None or colour
        assert all(len(line) <= 80 for line in re.sub(r"\x1b\[[0-9;]*m|\r", "", text).splitlines())


def test_status_only_reads(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites)
    before = sites.ledger.read_bytes()
    for args in (("status",), ("status", "--json"), ("history", "night/a.fits"), ("check",)):
        hdfmgr(args[0], config, *args[1:])
    assert sites.ledger.read_bytes() == before


# status --failed


def test_the_files_in_trouble_are_listed_with_what_to_do(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites, (ODD, b"night/b c.fits", b"d"))
    code, out, err = hdfmgr("status", config, "--failed")
    assert (code, err) == (0, "")
    assert re.sub(r" in 59 min \d+ s", " in 59 min", out).splitlines() == [
        "1 file conflict",
        f"  → other content has its name: compare the two (`hdfmgr history {config} 'night/b c.fits'`), "
        f"and move one of them away, then `hdfmgr retry {config} 'night/b c.fits'`",
        "'night/b c.fits'",
        "      other content is there",
        "      next try on `retry`",
        "1 file failed: can't be read",
        "  → let the manager's account read it; it is tried again by itself, "
        f"or at once by `hdfmgr retry {config} $'odd \\xff\\n\\'name\\'.fits'`",
        "$'odd \\xff\\n\\'name\\'.fits'",
        "      night/a.fits can't be read: Permission denied",
        "      1 attempt; next try in 59 min",
    ]
    assert hdfmgr("status", config, "--failed", "--cause", "CONF")[1].splitlines()[2] == "'night/b c.fits'"
    assert hdfmgr("status", config, "--failed", "--cause", "x")[1] == "no file is in trouble for that\n"
    assert hdfmgr("status", config, "--failed", "--limit", "1")[1].splitlines()[-1] == (
        "and 1 file more: --limit 0 lists all, --cause TEXT chooses"
    )


def test_the_files_in_trouble_in_json_are_one_object(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    assert json.loads(hdfmgr("status", config, "--failed", "--json")[1]) == {
        "version": 1,
        "in_trouble": 0,
        "listed": 0,
        "groups": [],
        "files": [],
    }
    _fill(sites)
    told = json.loads(hdfmgr("status", config, "--failed", "--json", "--cause", "read")[1])
    assert (told["in_trouble"], told["listed"]) == (1, 1)
    assert [group["cause"] for group in told["groups"]] == ["can't be read"]
    (file,) = told["files"]
    assert (file["path"], file["state"], file["attempts"]) == ("night/a.fits", "failed", 1)
    assert file["next_try"].endswith("Z")


def test_names_as_they_are_shown_are_taken_by_history_and_retry(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites, (ODD, b"b", b"c"))
    listed = hdfmgr("status", config, "--failed", "--cause", "read")[1].splitlines()[2]
    by_shell = run_program(
        ["bash", "-c", f'"$@" {listed}', "bash", *sites._argv(("history", str(config)))], cwd=REPOSITORY
    )
    # As the log shows it, and between quotes in which a shell changes nothing.
    as_told = hdfmgr("history", config, "odd \\xff\\n'name'.fits")
    assert (by_shell.exit_code, as_told[0]) == (0, 0)
    assert by_shell.stdout.decode().splitlines()[0] == as_told[1].splitlines()[0] == f" file       {listed}"
    assert hdfmgr("retry", config, "odd \\xff\\n'name'.fits")[:2] == (0, "1 file to try again\n")


def test_a_name_with_a_backslash_in_it_is_meant_before_one_that_is_shown_like_it(
    hdfmgr: Hdfmgr, sites: Sites
) -> None:
    config = sites.write_config()
    _fill(sites, (b"a\\n", b"b", b"a\n"))
    told = json.loads(hdfmgr("history", config, "a\\n", "--json")[1])
    assert told["path"] == "a\\n"


# history


def test_history_tells_what_happened_and_what_the_file_waits_for(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites)
    code, out, _ = hdfmgr("history", config, "night/a.fits")
    assert code == 0
    for words in (
        "found",
        "sending",
        "failed",
        "Permission denied",
        "its next try in 59 min",
        "exit code 23",
    ):
        assert words in out
    told = json.loads(hdfmgr("history", config, "night/a.fits", "--json")[1])
    assert told["version"] == 1
    (version,) = told["versions"]
    assert [step["to"] for step in version["transitions"]] == ["found", "sending", "failed"]
    assert version["state"] == "failed"
    assert version["batches"][0]["phases_seconds"] == {"hash": 0.1, "send": 2.5}


@pytest.mark.parametrize("root", ["buffer", "holding"])
def test_history_takes_an_absolute_path_of_any_bytes(hdfmgr: Hdfmgr, sites: Sites, root: str) -> None:
    config = sites.write_config()
    _fill(sites)
    named = os.fsdecode(os.fsencode(getattr(sites, root)) + b"/" + ODD)
    told = json.loads(hdfmgr("history", config, named, "--json")[1])
    assert told["path"] == {"base64": "b2RkIP8KJ25hbWUnLmZpdHM="}


def test_history_of_an_unknown_file_says_why_it_may_be(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites)
    for name in (b"night/new.fits", b"night/new.tmp"):
        write_file(sites.buffer, name)
    (sites.buffer / "night/link").symlink_to("new.fits")
    for path, words in (
        ("nope.fits", "the ledger does not know nope.fits"),
        ("night", "night is a directory"),
        ("night/link", "it is no regular file"),
        ("night/new.tmp", r"`\.tmp$` of exclude_list fits it"),
        ("night/new.fits", f"no manager runs: `hdfmgr start {config}`"),
        ("/elsewhere/a.fits", "does not lie below"),
    ):
        code, out, err = hdfmgr("history", config, path)
        assert (code, out) == (1, "")
        assert words in err
    with sites.start("start", sites.write_config(general={"settle": "1h"})):
        eventually(lambda: holder(sites.ledger))
        assert "it has not settled" in hdfmgr("history", config, "night/new.fits")[2]


def test_history_says_why_new_content_under_a_known_name_is_not_taken(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    write_file(sites.buffer, b"a", b"old")
    assert hdfmgr("start", config, "--once")[0] == 0
    assert "hint" not in hdfmgr("history", config, "a")[1]
    write_file(sites.buffer, b"a", b"new")
    told = json.loads(hdfmgr("history", config, "a", "--json")[1])
    [version] = told["versions"]
    assert version["state"] == "held"
    assert version["hint"] == (
        f"what lies in the buffer by this name is not known yet: no manager runs: `hdfmgr start {config}`"
    )


# retry


def _states(hdfmgr: Hdfmgr, config: Path) -> dict[str, int]:
    told = json.loads(hdfmgr("status", config, "--json")[1])
    return {state: count["files"] for state, count in told["states"].items() if count["files"]}


def test_retry_takes_all_that_failed_and_leaves_conflicts(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites)
    assert hdfmgr("retry", config) == (0, "1 file to try again\n", "")
    assert _states(hdfmgr, config) == {"found": 1, "delivered": 1, "conflict": 1}
    assert hdfmgr("retry", config) == (0, "0 files to try again\n", "")


def test_a_retry_is_part_of_the_history(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites)
    hdfmgr("retry", config)
    (version,) = json.loads(hdfmgr("history", config, "night/a.fits", "--json")[1])["versions"]
    last = version["transitions"][-1]
    assert (last["from"], last["to"], last["reason"]) == (
        "failed",
        "found",
        "somebody asked for another try",
    )
    assert version["waits_for"] == "its turn to be taken on: hdfmgr is not running"


@pytest.mark.parametrize("args", [("night/b.fits",), ("night",), ("--cause", "conflict")])
def test_retry_takes_a_conflict_by_name_or_cause(hdfmgr: Hdfmgr, sites: Sites, args: tuple[str, ...]) -> None:
    config = sites.write_config()
    _fill(sites)
    assert hdfmgr("retry", config, *args)[0] == 0
    assert "conflict" not in _states(hdfmgr, config)


def test_retry_by_cause_takes_no_other(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites)
    assert hdfmgr("retry", config, "--cause", "READ")[:2] == (0, "1 file to try again\n")


def test_a_cause_that_nothing_has_is_told_like_a_path_that_nobody_knows(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites)
    code, out, _ = hdfmgr("retry", config, "--cause", "nonsense")
    assert code == 1
    assert out.splitlines() == [
        "0 files to try again",
        "no cause has 'nonsense' in it: 'conflict', 'can't be read'",
    ]


def test_retry_tells_which_paths_have_nothing_to_try(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites)
    code, out, _ = hdfmgr("retry", config, "night/a.fits", "nope", os.fsdecode(ODD))
    assert code == 1
    assert out.splitlines() == [
        "1 file to try again",
        "nope: nothing to try again: it is not known to the ledger",
        "$'odd \\xff\\n\\'name\\'.fits': nothing to try again: it is delivered",
    ]


def test_retry_of_a_directory_without_trouble_says_so(hdfmgr: Hdfmgr, sites: Sites) -> None:
    config = sites.write_config()
    _fill(sites, (b"a", b"b", b"night/c.fits"))
    code, out, _ = hdfmgr("retry", config, "night")
    assert code == 1
    assert out.splitlines()[1] == "night: nothing to try again: no file below it is in trouble for that"


def test_retry_without_a_ledger_is_exit_11(hdfmgr: Hdfmgr, sites: Sites) -> None:
    code, _, err = hdfmgr("retry", sites.write_config())
    assert code == 11
    assert "there is no ledger" in err


# stop


def test_stop_without_a_manager_says_so(hdfmgr: Hdfmgr, sites: Sites) -> None:
    assert hdfmgr("stop", sites.write_config()) == (0, "hdfmgr is not running\n", "")
