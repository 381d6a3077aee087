"""Configurations of the OODS are recognised, read in either nesting, and translated."""

from pathlib import Path

import pytest

from common.config.document import read
from common.errors import ConfigError
from endpoint.config import EndpointConfig
from endpoint.oods import is_oods, load
from endpoint.premises import Premises

REPOSITORY = Path(__file__).parents[2]

DEFAULT_INTERVAL = """\
defaultInterval: &interval
    days: 0
    hours: 0
    minutes: 0
    seconds: 0
"""
CLEANER = """\
cacheCleaner:
    directories:
        - /data/repo/raw
    scanInterval:
        <<: *interval
        seconds: 30
    filesOlderThan:
        <<: *interval
        days: 30
    directoriesEmptyForMoreThan:
        <<: *interval
        days: 1
"""
RELEASED = f"""\
{DEFAULT_INTERVAL}
ingester:
    directories:
        - /data/buffer
    butler:
        class:
            import : lsst.ctrl.oods.gen2ButlerIngester
            name : Gen2ButlerIngester
        repoDirectory : /data/repo
    batchSize: 20
    scanInterval:
        <<: *interval
        seconds: 10

{CLEANER}"""
"""As release 1.0.0-rc1 has it."""
PRINTED = f"""\
{DEFAULT_INTERVAL}
ingester:
  directories:
    - /data/buffer
  butler:
    class:
      import : lsst.ctrl.oods.gen2ButlerIngester
      name : Gen2ButlerIngester
      repoDirectory: /data/repo
    batchSize: 20
    scanInterval:
      <<: *interval
      seconds: 10

{CLEANER}"""
"""As Rubin's quickstart has it."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "oods.yaml"


def loaded(path: Path, text: str, *, level: str | None = None) -> EndpointConfig:
    path.write_text(text)
    return load(path, {"XDG_STATE_HOME": "/state"}, level=level)


def problems(path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(path, text)
    return [line.removeprefix(f"{path}:") for line in caught.value.message.splitlines()]


@pytest.mark.parametrize("text", [RELEASED, PRINTED], ids=["released", "printed"])
def test_both_nestings_mean_the_same(path: Path, text: str) -> None:
    config = loaded(path, text)
    assert (config.endpoint.buffer, config.endpoint.storage) == (Path("/data/buffer"), None)
    assert config.catalogue == "command"
    assert config.catalogue_config == {
        "run": [
            *("ingestImages.py", "/data/repo", "--ignore-ingested", "--mode", "move", "--loglevel=info"),
            "{files}",
        ],
        "is_taken": True,
    }
    assert (config.ingester.batch_size, config.general.pause) == (20, 10)
    assert config.cleaner.directories == (Path("/data/repo/raw"),)
    assert config.cleaner.files_older_than == 30 * 86_400
    assert config.cleaner.directories_empty_for_more_than == 86_400
    assert config.cleaner.scan_interval == 30
    assert config.ledger_path == Path("/state/dbb/oods.db")


def test_its_files_are_ingested_where_they_lie(path: Path) -> None:
    premises = Premises.of(loaded(path, RELEASED))
    assert (premises.home, premises.storage) == (b"/data/buffer", None)


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [
        ("{hours: 2, minutes: 3, seconds: 4}", 7384),
        ("{hours: 1.5}", 5400),
        ("{<<: *interval, minutes: 2}", 120),
        ("{days: 100}", 86_400),  # the longest pause between two scans
        ("*interval", 0.1),
        ("{seconds: 0}", 0.1),
    ],
)
def test_the_units_of_an_interval_are_added_up(path: Path, interval: str, seconds: float) -> None:
    text = RELEASED.replace(
        "    scanInterval:\n        <<: *interval\n        seconds: 10\n", f"    scanInterval: {interval}\n"
    )
    assert loaded(path, text).general.pause == seconds


@pytest.mark.parametrize(("given", "taken"), [("-1", 100_000), ("1", 1), ("500", 500)])
def test_a_batch_size_of_minus_one_is_all(path: Path, given: str, taken: int) -> None:
    assert loaded(path, RELEASED.replace("batchSize: 20", f"batchSize: {given}")).ingester.batch_size == taken


@pytest.mark.parametrize(
    ("level", "told"),
    [("DEBUG", "debug"), ("INFO", "info"), ("WARNING", "warn"), ("ERROR", "error"), ("CRITICAL", "fatal")],
)
def test_the_level_of_logging_is_that_of_the_program(path: Path, level: str, told: str) -> None:
    by_option = loaded(path, RELEASED, level=level)
    by_key = loaded(path, RELEASED + f"logging: {{level: {level}}}\n")
    for config in (by_option, by_key):
        run = config.catalogue_config["run"]
        assert isinstance(run, list)
        assert f"--loglevel={told}" in run
        assert config.logging.level == level


def test_our_own_sections_may_stand_beside(path: Path) -> None:
    ours = "general: {pause: 2s, retry: {attempts: 7}}\ndatabase: {engine: 'sqlite:////data/l.db'}\n"
    config = loaded(path, RELEASED + ours)
    assert (config.general.pause, config.general.retry.attempts) == (2, 7)
    assert config.ledger_path == Path("/data/l.db")


def test_another_class_is_a_catalogue_of_ones_own(path: Path) -> None:
    text = PRINTED.replace("lsst.ctrl.oods.gen2ButlerIngester", "our.ingest").replace(
        "Gen2ButlerIngester", "Ours"
    )
    config = loaded(path, text)
    assert config.catalogue == {"import": "our.ingest", "name": "Ours"}
    assert config.catalogue_config == {"repoDirectory": "/data/repo"}


def test_the_module_of_the_gen2_ingester_may_have_any_name(path: Path) -> None:
    text = RELEASED.replace("lsst.ctrl.oods.gen2ButlerIngester", "somewhere.else")
    assert loaded(path, text).catalogue == "command"


def test_a_catalogue_of_ours_may_stand_in_the_place_of_butler(path: Path) -> None:
    text = "ingester: {directories: [/data/buffer], catalogue: butler, config: {repo: /data/repo}}\n"
    config = loaded(path, text)
    assert (config.catalogue, config.catalogue_config) == ("butler", {"repo": "/data/repo"})
    assert config.endpoint.storage is None


def test_what_a_catalogue_of_ours_does_not_want_is_told(path: Path) -> None:
    text = "ingester: {directories: [/data/buffer], catalogue: butler, config: {repo: repo}}\n"
    assert problems(path, text) == ["1: ingester.config.repo: must be an absolute path, not repo"]


def test_delivery_notes_are_read_where_it_says_where_they_are(path: Path) -> None:
    config = loaded(path, RELEASED.replace("    batchSize:", "    staging: /data/staging\n    batchSize:"))
    assert config.endpoint.staging == Path("/data/staging")


def test_relative_directories_begin_where_the_command_is_given(path: Path) -> None:
    text = RELEASED.replace("/data/buffer", "data").replace("/data/repo", "repo")
    config = loaded(path, text)
    assert config.endpoint.buffer == Path.cwd() / "data"
    assert config.cleaner.directories == (Path.cwd() / "repo/raw",)
    assert config.catalogue_config["run"][1] == str(Path.cwd() / "repo")  # type: ignore[index]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("batchSize:", "batchsize:", "15: ingester.batchsize: unknown key; did you mean 'batchSize'?"),
        ("days: 30", "day: 30", "28: cacheCleaner.filesOlderThan.day: unknown key; did you mean 'days'?"),
        ("days: 30", "days: x", "28: cacheCleaner.filesOlderThan.days: must be a number, not 'x'"),
        ("days: 30", "days: 0", "26: cacheCleaner.filesOlderThan: must be more than nothing, "
         "or all would be removed at once"),
        ("batchSize: 20", "batchSize: 0", "15: ingester.batchSize: must be at least 1, "
         "or -1 for all at once, not 0"),
        ("        - /data/buffer", "        - /a\n        - /b", "8: ingester.directories: must have one "
         "directory; more than one is given (start a manager for each)"),
        ("        - /data/buffer\n", "", "8: ingester.directories: must have one directory; none is given "
         "(start a manager for each)"),
        ("        repoDirectory : /data/repo\n", "", "10: ingester.butler.repoDirectory: is required"),
        ("repoDirectory : /data/repo", "repoDirectory : /data/buffer/repo", "14: "
         "ingester.butler.repoDirectory: must not lie inside ingester.directories[0] (/data/buffer)"),
        ("            name : Gen2ButlerIngester\n", "", "11: ingester.butler.class.name: is required"),
        ("- /data/repo/raw", "- /state", "22: cacheCleaner.directories[0]: must not contain the ledger "
         "(/state/dbb/oods.db)"),
        ("cacheCleaner:", "database: {engine: 'sqlite:////data/repo/raw/l.db'}\ncacheCleaner:",
         "23: cacheCleaner.directories[0]: must not contain the ledger (/data/repo/raw/l.db)"),
        ("    filesOlderThan:\n        <<: *interval\n        days: 30\n", "",
         "20: cacheCleaner.filesOlderThan: is required"),
        ("    batchSize: 20", "    batchSize: 20\n    catalogue: sqlite",
         "16: ingester.catalogue: goes in the place of ingester.butler; keep one of them"),
        ("        repoDirectory : /data/repo\n", "        repoDirectory : /data/repo\n        batchSize: 3\n",
         "15: ingester.butler.batchSize: is given in ingester.batchSize too; keep one of them"),
    ],
)  # fmt: skip
def test_a_problem_is_told_with_its_line(path: Path, old: str, new: str, problem: str) -> None:
    assert old in RELEASED
    assert problems(path, RELEASED.replace(old, new)) == [problem]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RELEASED, True),
        ("ingester: {directories: [/data]}", True),
        ("ingester: {batchSize: 1}", True),
        ("cacheCleaner: {}", True),
        ("endpoint: {buffer: /b, storage: /s}\ningester: {catalogue: sqlite}", False),
        ("endpoint: {buffer: /b, storage: /s}\ncacheCleaner: {}", False),
        ("ingester: {batch_size: 1}", False),
        ("ingester:", False),
        ("{}", False),
    ],
)
def test_a_configuration_is_known_by_its_keys(path: Path, text: str, *, expected: bool) -> None:
    path.write_text(text)
    assert is_oods(read(path, {})) == expected


def test_a_configuration_of_ours_needs_a_storage(path: Path) -> None:
    assert problems(path, "endpoint: {buffer: /data/buffer}") == ["1: endpoint.storage: is required"]
    assert problems(path, "endpoint: {buffer: /b, storage: null}") == ["1: endpoint.storage: is required"]


def test_our_cleaner_may_not_remove_what_the_manager_needs(path: Path) -> None:
    text = "endpoint: {buffer: /b, storage: /s}\ncleaner: {directories: [/s, /state]}\n"
    assert problems(path, text) == [
        "2: cleaner.directories[1]: must not contain the ledger (/state/dbb/oods.db)"
    ]
