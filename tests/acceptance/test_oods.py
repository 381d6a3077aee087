"""The endpoint manager with configurations of the OODS, and as the scripts of old start it.

`ingestImages.py` is a stand-in: a real program on PATH that moves into the repository what is not called
bad, and keeps what it was given.
"""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from common.process import Background, Completed, run
from tests.archive import Archive
from tests.loopback import REPOSITORY, files_below, write_file
from tests.runs import Run, counts, eventually, rows, states
from tests.troubles import story

SCRIPT = REPOSITORY / "endpoint" / "bin" / "start_oods.sh"
COMMANDS = Path(sys.executable).parent
"""Where `endmgr` is."""
HOSTILE = [b"n/a b.fits", b"-rf.fits", b"two\nlines.fits", b"'q\".fits", b"$(reboot).fits", b"\xfe.fits"]

STAND_IN = """\
#!{python}
import json, os, shutil, sys, time
repo, *options = sys.argv[1:6]
files = sys.argv[6:]
with open({calls!r}, "a") as calls:
    calls.write(json.dumps([repo, *options, *files]) + "\\n")
for file in files:
    if "bad" not in os.path.basename(file):
        os.makedirs(os.path.join(repo, "raw"), exist_ok=True)
        shutil.move(file, os.path.join(repo, "raw", os.path.basename(file)))
{then}
"""


class Oods(Archive):
    """A buffer and a repository, with a configuration of the OODS."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.storage.rmdir()
        self.config = directory / "oods.yaml"
        self.repo = directory / "repo"
        self.programs = directory / "programs"
        self.programs.mkdir()
        self.write_config()

    def write_config(self, **overrides: object) -> Path:
        """Write it as Rubin's quickstart prints it; `overrides` stand in `ingester`."""
        more = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in overrides.items())
        self.config.write_text(
            f"""\
defaultInterval: &interval
    days: 0
    hours: 0
    minutes: 0
    seconds: 0
ingester:
{more}  directories:
    - {self.buffer}
  butler:
    class:
      import : lsst.ctrl.oods.gen2ButlerIngester
      name : Gen2ButlerIngester
      repoDirectory: {self.repo}
    scanInterval:
      <<: *interval
      seconds: 1
cacheCleaner:
  directories:
    - {self.repo}/raw
  scanInterval:
    <<: *interval
    seconds: 1
  filesOlderThan:
    <<: *interval
    days: 30
  directoriesEmptyForMoreThan:
    <<: *interval
    days: 1
database: {{engine: 'sqlite:///{self.ledger}'}}
general: {{settle: 0, min_free: 0, retry: {{first: 0.2, most: 1}}}}
"""
        )
        return self.config

    def replace(self, old: str, new: str) -> None:
        """Change the configuration."""
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def install(self, *, then: str = "") -> None:
        """Put the stand-in on PATH; `then` is what it does at its end."""
        program = self.programs / "ingestImages.py"
        calls = str(self.directory / "calls")
        program.write_text(STAND_IN.format(python=sys.executable, calls=calls, then=then))
        program.chmod(0o755)

    def calls(self) -> list[list[str]]:
        """What it was run with."""
        calls = self.directory / "calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    def taken(self) -> list[bytes]:
        """The names of what is in the repository."""
        return sorted(files_below(self.repo / "raw")) if self.repo.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        """Where the commands and the stand-in are on PATH."""
        return self._environment(None)

    def script(self, *args: str | Path, path: str | None = None) -> Completed:
        """Run `start_oods.sh` to its end."""
        env = {**self.environment, **({"PATH": path} if path else {})}
        return run([str(SCRIPT), *(str(arg) for arg in args)], timeout=60, env=env, cwd=self.directory)

    def oods_py(self, *args: str | Path) -> Completed:
        """Run `oods.py` to its end."""
        argv = [sys.executable, "-m", "endpoint.command", *(str(arg) for arg in args)]
        return run(argv, timeout=60, env=self.environment, cwd=REPOSITORY)

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        path = f"{self.programs}:{COMMANDS}:/usr/bin:/bin"
        return {**super()._environment(env), "PATH": path, **(env or {})}


@pytest.fixture
def oods(tmp_path: Path) -> Oods:
    return Oods(tmp_path / "oods")


def put(oods: Oods, *names: bytes) -> dict[bytes, bytes]:
    return oods.deliver({name: b"light of " + name for name in names}, note=None)


def lines(path: Path) -> str:
    return path.read_text() if path.exists() else ""


# Ingesting


def test_the_program_takes_the_files_and_they_are_ingested(oods: Oods) -> None:
    oods.install()
    content = put(oods, *HOSTILE)
    assert oods.once() == 0
    assert counts(oods) == {"ingested": len(content)}
    assert files_below(oods.buffer) == {}
    assert oods.taken() == sorted(os.path.basename(name) for name in content)


@pytest.mark.parametrize(("batch_size", "sizes"), [(2, [1, 2, 2]), (-1, [5])])
def test_it_is_run_as_the_oods_ran_it_in_batches(oods: Oods, batch_size: int, sizes: list[int]) -> None:
    oods.write_config(batchSize=batch_size)
    oods.install()
    put(oods, *(b"%d.fits" % number for number in range(5)))
    assert oods.once() == 0
    calls = oods.calls()
    told = [str(oods.repo), "--ignore-ingested", "--mode", "move", "--loglevel=info"]
    assert {tuple(call[:5]) for call in calls} == {tuple(told)}
    assert sorted(len(call[5:]) for call in calls) == sizes
    files = sorted(file for call in calls for file in call[5:])
    assert files == [f"{oods.buffer}/{number}.fits" for number in range(5)]


@pytest.mark.parametrize("exit_code", [0, 1])
def test_what_it_leaves_there_has_failed_whatever_its_exit_code(oods: Oods, exit_code: int) -> None:
    oods.install(then=f"sys.exit({exit_code})")
    put(oods, b"a.fits", b"bad.fits", b"c.fits")
    assert oods.once() == 3
    assert counts(oods) == {"ingested": 2, "failed": 1}
    [(reason,)] = rows(oods, "SELECT reason FROM files WHERE state = 'failed'")
    assert "ingestImages.py left it where it was" in reason
    assert files_below(oods.buffer) == {b"bad.fits": b"light of bad.fits"}
    assert [str(oods.buffer / "bad.fits")] in [call[5:] for call in oods.calls()]


def test_it_is_tried_again_and_then_waits_for_retry(oods: Oods) -> None:
    oods.install()
    put(oods, b"bad.fits")
    with Run(oods) as manager:
        eventually(lambda: rows(oods, "SELECT 1 FROM files WHERE state = 'failed' AND due_at IS NULL"))
        tried = len(oods.calls())
        assert tried == 3
        program = oods.programs / "ingestImages.py"
        program.write_text(program.read_text().replace('"bad"', '"worse"'))
        assert oods.command("retry", oods.config, "bad.fits").exit_code == 0
        eventually(lambda: counts(oods) == {"ingested": 1})
        assert manager.stop() == 0
    assert oods.taken() == [b"bad.fits"]
    assert len(oods.calls()) == tried + 1


def test_what_was_taken_before_a_kill_is_ingested_and_not_offered_again(oods: Oods) -> None:
    oods.install(then="time.sleep(60)")
    put(oods, b"a.fits")
    with Run(oods) as manager:
        eventually(lambda: oods.taken() == [b"a.fits"])
        manager.kill()
    oods.install()
    assert oods.once() == 0
    assert counts(oods) == {"ingested": 1}
    assert len(oods.calls()) == 1
    assert story(oods, b"a.fits")[0][-1] == "ingested"


def test_without_the_program_check_and_start_say_so_and_no_file_is_lost(oods: Oods) -> None:
    content = put(oods, b"a.fits")
    checked = oods.command("check", oods.config, "--json")
    [failed] = [one for one in json.loads(checked.stdout)["results"] if one["status"] == "FAIL"]
    assert checked.exit_code == 4
    assert "ingestImages.py: not found" in failed["detail"]
    assert "`catalogue: sqlite`" in failed["hint"]
    started = oods.command("start", oods.config, "--once")
    assert started.exit_code == 3
    assert b"ingestImages.py: not found" in started.stderr
    assert b"in the place of `butler:`" in started.stderr
    assert files_below(oods.buffer) == content
    assert counts(oods) == {"stored": 1}
    oods.install()
    told = json.loads(oods.command("check", oods.config, "--json").stdout)["results"]
    assert [one["status"] for one in told if one["name"] == "catalogue"] == ["OK"]
    assert oods.once() == 0
    assert oods.taken() == [b"a.fits"]


def test_a_catalogue_of_ours_ingests_files_where_they_lie(oods: Oods) -> None:
    text = oods.config.read_text()
    begin, end = text.index("  butler:"), text.index("cacheCleaner:")
    mine = f"  catalogue: sqlite\n  config: {{path: {oods.catalogue}}}\n"
    oods.config.write_text(text[:begin] + mine + text[end:])
    content = put(oods, b"n/a.dat", b"b.dat")
    assert oods.once() == 0
    assert oods.once() == 0
    assert files_below(oods.buffer) == content
    assert oods.catalogued() == [b"b.dat", b"n/a.dat"]
    assert counts(oods) == {"ingested": 2}
    # What lies there is what the ledger knows.
    assert b"not known" not in oods.command("history", oods.config, "b.dat").stdout


def test_the_status_can_be_told_in_the_words_of_the_original(oods: Oods) -> None:
    oods.install()
    put(oods, b"a.fits", b"bad.fits")
    assert oods.once() == 3
    told = json.loads(oods.command("status", oods.config, "--original", "--json").stdout)
    assert {word: count["files"] for word, count in told["words"].items() if count["files"]} == {
        "SUCCESS": 1,
        "FAILURE": 1,
    }
    assert told["states"]["ingested"]["files"] == 1
    assert "words" not in oods.status()
    assert re.search(r"UNTRIED +0 .*", oods.command("status", oods.config, "--original").stdout.decode())
    assert oods.command("status", oods.config, "--original", "--failed").exit_code == 2


def test_what_others_remove_before_the_program_gets_it_is_not_ingested(oods: Oods) -> None:
    oods.replace("scanInterval:\n      <<: *interval", "batchSize: 1\n    scanInterval:\n      <<: *interval")
    go_on = oods.directory / "go on"
    oods.install(then=f"while not os.path.exists({str(go_on)!r}): time.sleep(0.02)")
    put(oods, b"a.fits")
    with Run(oods) as manager:
        eventually(lambda: oods.taken() == [b"a.fits"])
        put(oods, b"b.fits")
        eventually(lambda: states(oods, b"b.fits") == ["stored"])
        (oods.buffer / "b.fits").unlink()
        go_on.touch()
        eventually(lambda: counts(oods) == {"ingested": 1, "vanished": 1})
        assert manager.stop() == 0
    assert len(oods.calls()) == 1


def test_every_verb_takes_the_configuration(oods: Oods) -> None:
    oods.install()
    put(oods, b"a.fits")
    assert oods.command("initdb", oods.config).exit_code == 0
    with Run(oods) as manager:
        eventually(lambda: counts(oods) == {"ingested": 1})
        assert oods.status()["states"]["ingested"]["files"] == 1
        assert oods.command("stop", oods.config).exit_code == 0
        assert manager.process.wait(10) == 0
    assert oods.command("history", oods.config, oods.buffer / "a.fits").exit_code == 0
    assert oods.command("retry", oods.config).exit_code == 0
    shown = oods.command("validate", oods.config, "--show").stdout.decode()
    assert shown.startswith("# What an OODS configuration means")
    assert f"buffer: {oods.buffer}" in shown
    assert "files_older_than: 30d" in shown


# Cleaning


def test_the_cleaner_removes_what_is_old_in_the_repository_and_says_so_once(oods: Oods) -> None:
    oods.install()
    oods.replace("days: 30", "seconds: 2")
    oods.replace("days: 1", "seconds: 1")
    put(oods, b"a.fits", b"b.fits")
    write_file(oods.repo / "raw", b"n/old", b"light")
    with Run(oods) as manager:
        eventually(lambda: counts(oods) == {"ingested": 2})
        eventually(lambda: list((oods.repo / "raw").iterdir()) == [])
        eventually(lambda: told_removed(manager.said) == {"file": 3, "empty directory": 1})
        assert manager.stop() == 0
    assert counts(oods) == {"ingested": 2}
    assert told_removed(manager.said) == {"file": 3, "empty directory": 1}


def told_removed(said: str) -> dict[str, int]:
    """How much the log says was removed, all lines added up."""
    told: dict[str, int] = {}
    for line in said.splitlines():
        if ":removed " in line:
            for number, noun in re.findall(r"([0-9]+) (file|empty directory)", line):
                told[noun] = told.get(noun, 0) + int(number)
    return told


def test_the_cleaner_of_ours_leaves_alone_what_is_not_done_with(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    cache = archive.directory / "cache"
    archive.write_config(
        finder={"exclude_list": [r"\.part$"]},
        cleaner={
            "directories": [str(path) for path in (archive.buffer, archive.storage, cache)],
            "files_older_than": "1s",
            "directories_empty_for_more_than": "1h",
            "scan_interval": "0.2s",
        },
    )
    rejected = archive.deliver({b"bad.dat": b"altered"}, digest="0" * 64)
    archive.deliver({b"good.dat": b"light"}, note="batch-1")
    unfound = write_file(archive.buffer, b"a.part", b"half")
    strange = write_file(archive.storage, b"strange.dat", b"nobody knows me")
    write_file(cache, b"old.dat", b"light")
    with Run(archive) as manager:
        eventually(lambda: counts(archive) == {"rejected": 1, "ingested": 1})
        eventually(lambda: files_below(cache) == {})
        eventually(lambda: not (archive.storage / "good.dat").exists())
        assert manager.stop() == 0
    assert files_below(archive.buffer) == {**rejected, b"a.part": b"half"}
    assert files_below(archive.storage) == {b"strange.dat": b"nobody knows me"}
    assert os.path.exists(unfound)
    assert os.path.exists(strange)
    assert states(archive, b"good.dat") == ["ingested"]


def test_a_cleaner_that_finds_no_directory_says_so_and_disturbs_nothing(oods: Oods) -> None:
    oods.install()
    with Run(oods) as manager:
        eventually(lambda: "can't be cleaned: No such file or directory" in manager.said)
        put(oods, b"a.fits")
        eventually(lambda: counts(oods) == {"ingested": 1})
        time.sleep(2.5)
        assert manager.stop() == 0
    assert manager.said.count("can't be cleaned") == 1


# The scripts of old


def test_the_script_works_wherever_it_is_copied_to_and_logs_where_it_is_told(
    oods: Oods, tmp_path: Path
) -> None:
    oods.install()
    put(oods, b"a.fits")
    copy = Path(shutil.copy(SCRIPT, oods.programs))
    log = tmp_path / "my log"
    argv = [str(copy), "-l", str(log), str(oods.config)]
    with Background(argv, env=oods.environment, cwd=oods.directory, output=oods.output) as script:
        eventually(lambda: counts(oods) == {"ingested": 1})
        assert oods.command("stop", oods.config).exit_code == 0
        assert script.wait(10) == 0
    assert ":ingested: 1 of 1 file" in lines(log)
    assert lines(oods.output) == ""


def test_the_script_prints_how_it_is_used(oods: Oods) -> None:
    helped = oods.script("-h")
    assert helped.exit_code == 0
    assert helped.stdout.startswith(b"Usage: start_oods.sh [-h] [-l LOG] CONFIG\n")
    assert b"/var/log/oods.log" in helped.stdout


@pytest.mark.parametrize("args", [[], ["a", "b"], ["-x", "a"], ["-l"]], ids=["none", "two", "odd", "no log"])
def test_the_script_wants_one_configuration(oods: Oods, args: list[str]) -> None:
    refused = oods.script(*args)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(b"start_oods.sh: ")
    assert b"-h prints how it is used" in refused.stderr


@pytest.mark.parametrize("log", ["", "missing/oods.log"], ids=["a directory", "nowhere"])
def test_a_log_that_can_not_be_written_is_told_and_nothing_is_started(oods: Oods, log: str) -> None:
    place = oods.directory / log
    refused = oods.script("-l", place, oods.config)
    assert refused.exit_code == 1
    assert f"start_oods.sh: {place} can't be written\n  name a file".encode() in refused.stderr
    assert not oods.ledger.exists()


def test_the_script_tells_what_is_wrong_with_the_configuration_where_it_is_seen(oods: Oods) -> None:
    oods.replace("filesOlderThan", "filesolderthan")
    refused = oods.script("-l", oods.directory / "log", oods.config)
    assert refused.exit_code == 10
    assert b"unknown key; did you mean 'filesOlderThan'?" in refused.stderr
    assert not (oods.directory / "log").exists()


def test_the_script_without_the_manager_on_path_says_what_to_do(oods: Oods) -> None:
    refused = oods.script(oods.config, path="/usr/bin:/bin")
    assert refused.exit_code == 127
    assert b"endmgr is not on PATH\n  install" in refused.stderr


def test_the_script_passes_shellcheck() -> None:
    done = run([str(COMMANDS / "shellcheck"), str(SCRIPT)], timeout=60)
    assert done.exit_code == 0, done.stdout.decode()


def test_the_command_of_old_helps(oods: Oods) -> None:
    helped = oods.oods_py("--help")
    assert helped.exit_code == 0
    assert helped.stdout.startswith(b"usage: oods.py [-h] [-y] [-l {DEBUG,INFO,WARN,ERROR,FATAL}]")


def test_the_command_of_old_validates(oods: Oods) -> None:
    assert oods.oods_py("-y").exit_code == 0
    assert oods.oods_py("--yaml-validate", oods.config).exit_code == 0
    oods.replace("filesOlderThan", "filesolderthan")
    refused = oods.oods_py("-y", oods.config)
    assert refused.exit_code == 10
    assert b"did you mean 'filesOlderThan'?" in refused.stderr
    assert oods.oods_py("-l", "LOUD", oods.config).exit_code == 2


def test_the_command_of_old_starts_the_manager_at_its_level(oods: Oods) -> None:
    oods.install()
    put(oods, b"a.fits")
    argv = [sys.executable, "-m", "endpoint.command", "-l", "ERROR", str(oods.config)]
    with Background(argv, env=oods.environment, cwd=REPOSITORY, output=oods.output) as command:
        eventually(lambda: counts(oods) == {"ingested": 1})
        assert oods.command("stop", oods.config).exit_code == 0
        assert command.wait(10) == 0
    assert oods.calls()[0][4] == "--loglevel=error"
    assert lines(oods.output) == ""
