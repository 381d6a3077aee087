"""The handoff configuration: what is required, what is defaulted, what is refused and how it is told."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.config.document import Key
from common.config.loading import fields
from common.errors import ConfigError
from common.remote import Site
from common.retry import Backoff
from handoff.config import HandoffConfig, effective, load

MINIMAL = """\
handoff:
  buffer: /data/buffer
  holding: /data/holding
endpoint:
  host: archive.example.edu
  buffer: /data/buffer
"""
ORIGINAL = """\
database:
  engine: "sqlite:////var/lib/dbb/handoff.db"
  echo: false
  pool_type: QueuePool
  pool_class: NullPool
handoff:
  buffer: /data/buffer
  holding: /data/holding
endpoint:
  user: jdoe
  host: example.edu
  port: 2022
  buffer: /data/buffer
  staging: /data/staging
  commands:
    remote: "ssh -p {port} {user}@{host} \\"{command}\\""
    transfer: "scp -Bq -P {port} {file} {user}@{host}:{dest}"
logging:
  format: "%(asctime)s:%(name)s:%(levelname)s:%(message)s"
  file: null
  level: warn
  rotate: time
  when: 'midnight'
  interval: 1
  maxbytes: 0
  backup_count: 7
general:
  chunk_size: 10
  timeout: null
  num_threads: 2
  expiration_time: 3600
  pause: 5
  exclude_list:
     # - '\\.temp'
"""

Load = Callable[[str], HandoffConfig]
Refused = Callable[[str], list[str]]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    def load_text(text: str) -> HandoffConfig:
        path = tmp_path / "site.yaml"
        path.write_text(text)
        return load(path, {"XDG_STATE_HOME": "/state", "PORT": "2222"})

    return load_text


@pytest.fixture
def refused(loaded: Load, tmp_path: Path) -> Refused:
    def problems(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            loaded(text)
        assert caught.value.exit_code == 10
        assert "validate" in caught.value.hint
        return caught.value.message.replace(f"{tmp_path}/site.yaml:", "").splitlines()

    return problems


def with_endpoint(*lines: str) -> str:
    return MINIMAL + "".join(f"  {line}\n" for line in lines)


def with_general(line: str) -> str:
    return f"{MINIMAL}general: {{{line}}}\n"


def test_two_sections_are_enough(loaded: Load) -> None:
    config = loaded(MINIMAL)
    assert config.handoff.buffer == Path("/data/buffer")
    assert config.endpoint.staging == "/data/buffer.staging"
    assert config.endpoint.site() == Site(
        "archive.example.edu",
        parameters={
            "host": "archive.example.edu",
            "buffer": "/data/buffer",
            "staging": "/data/buffer.staging",
            "transfer": "auto",
            "notes": "true",
        },
    )
    assert config.ledger_path == Path("/state/dbb/site.db")
    assert (config.logging.level, config.logging.file) == ("INFO", None)
    general = config.general
    assert (general.num_threads, general.chunk_size, general.batch_bytes) == (4, 500, 256_000_000)
    assert (general.timeout, general.stall_timeout, general.settle, general.pause) == (None, 120.0, 1.0, 1.0)
    assert (general.order, general.bandwidth, general.exclude_list) == ("oldest", None, (r"\.tmp$",))
    assert (general.expiration_time, general.min_free) == (86_400.0, 10**9)
    assert general.retry.backoff() == Backoff(attempts=10, first=5.0, factor=2.0, most=600.0)


def test_a_configuration_of_the_original_manager_works_unchanged(loaded: Load) -> None:
    config = loaded(ORIGINAL)
    assert config.endpoint.commands.transfer == "scp -Bq -P {port} {file} {user}@{host}:{dest}"
    assert config.endpoint.site().remote_template == 'ssh -p {port} {user}@{host} "{command}"'
    assert config.endpoint.parameters["port"] == "2022"
    assert config.ledger_path == Path("/var/lib/dbb/handoff.db")
    assert (config.logging.level, config.logging.rotate, config.logging.when) == (
        "WARNING",
        "TIME",
        "MIDNIGHT",
    )
    assert (config.general.exclude_list, config.general.pause, config.general.timeout) == ((), 5.0, None)
    assert [note.partition(":")[0] for note in config.notes()] == [
        "database.echo",
        "database.pool_type",
        "database.pool_class",
    ]


def test_an_optional_section_without_a_value_has_its_defaults(loaded: Load) -> None:
    empty = MINIMAL + "  ssh:\n  commands:\n  user:\n  staging:\ndatabase:\nlogging:\ngeneral:\n"
    assert loaded(empty) == loaded(MINIMAL)
    assert loaded(with_general("retry: ")) == loaded(MINIMAL)
    assert loaded(with_general("exclude_list: ")).general.exclude_list == ()


def test_a_placeholder_may_be_the_only_use_of_a_key_of_ones_own(loaded: Load) -> None:
    config = loaded(
        with_endpoint("streams: 8", "commands: {transfer: 'bbcp -s {streams} {batch} {host}:{dest}'}")
    )
    assert config.endpoint.parameters["streams"] == "8"
    assert config.endpoint.site().remote_template is None


def test_every_key_arrives_where_it_belongs(loaded: Load) -> None:
    text = with_endpoint(
        "user: jdoe",
        "transfer: scp",
        "notes: off",
        "ssh:",
        "  port: ${PORT:-22}",
        "  identity: /keys/id",
        "  config: /keys/config",
        "  options: {ConnectTimeout: 10, StrictHostKeyChecking: true, Compression: no}",
    )
    site = loaded(text).endpoint.site()
    assert (site.user, site.port, site.identity, site.config) == ("jdoe", 2222, "/keys/id", "/keys/config")
    assert site.options == {"ConnectTimeout": "10", "StrictHostKeyChecking": "yes", "Compression": "no"}
    assert loaded(text).endpoint.notes is False


def test_relative_paths_start_beside_the_file_and_a_tilde_is_home(loaded: Load, tmp_path: Path) -> None:
    config = loaded(
        "handoff: {buffer: buffer, holding: ~/holding}\n"
        "endpoint: {host: h, buffer: /b, ssh: {identity: ~/.ssh/id}}\n"
        "logging: {file: log/handoff.log}\n"
        "database: {engine: 'sqlite:///ledger.db'}\n"
    )
    home = Path(os.path.expanduser("~"))
    assert config.handoff.buffer == tmp_path / "buffer"
    assert config.handoff.holding == home / "holding"
    assert config.endpoint.ssh.identity == home / ".ssh/id"
    assert config.logging.file == tmp_path / "log/handoff.log"
    assert config.ledger_path == tmp_path / "ledger.db"


@pytest.mark.parametrize(
    ("engine", "path"),
    [
        ("sqlite:////var/lib/dbb/a b.db", "/var/lib/dbb/a b.db"),
        ("sqlite+pysqlite:////x.db?timeout=5", "/x.db"),
    ],
)
def test_the_ledger_is_named_as_sqlalchemy_does(engine: str, path: str, loaded: Load) -> None:
    assert loaded(f"{MINIMAL}database: {{engine: '{engine}'}}").ledger_path == Path(path)


@pytest.mark.parametrize(
    "engine", ["postgresql://host/db", "sqlite://", "sqlite:///:memory:", "/x.db", "sqlite:///file:x"]
)
def test_what_names_no_ledger_is_refused(engine: str, refused: Refused) -> None:
    (problem,) = refused(f"{MINIMAL}database: {{engine: '{engine}'}}")
    assert problem.startswith("7: database.engine: must be sqlite:////absolute/path")


def test_every_problem_is_told_at_once_in_the_order_of_the_file(refused: Refused) -> None:
    text = """\
handoff:
  bufer: /data/buffer
  holding: /data/holding
endpoint:
  host: jdoe@archive
  buffer: data
  ssh: {port: 0, options: {ControlPath: x}}
  commands: {transfer: "tool {fil}:{dest}"}
general:
  pause: 1:30
  chunck_size: 5
  num_threads: many
  order: old
  exclude_list: ['(']
  settle: ${MISSING}
endpiont: {}
"""
    assert [line.split(": ", 2)[:2] for line in refused(text)] == [
        ["1", "handoff.buffer"],
        ["2", "handoff.bufer"],
        ["5", "endpoint.host"],
        ["6", "endpoint.buffer"],
        ["7", "endpoint.ssh.options.ControlPath"],
        ["7", "endpoint.ssh.port"],
        ["8", "endpoint.commands.transfer"],
        ["8", "endpoint.commands.transfer"],
        ["10", "general.pause"],
        ["11", "general.chunck_size"],
        ["12", "general.num_threads"],
        ["13", "general.order"],
        ["14", "general.exclude_list[0]"],
        ["15", "general.settle"],
        ["16", "endpiont"],
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (with_general("chunck_size: 5"), "7: general.chunck_size: unknown key; did you mean 'chunk_size'?"),
        (with_general("Pause: 5"), "7: general.Pause: unknown key; did you mean 'pause'?"),
        (with_endpoint("usr: x"), "7: endpoint.usr: unknown key; did you mean 'user'?"),
        (with_endpoint("port: 22"), "7: endpoint.port: unknown key; did you mean 'endpoint.ssh.port'?"),
        (MINIMAL + "pause: 5\n", "7: pause: unknown key; did you mean 'general.pause'?"),
        (
            MINIMAL + "else: 5\n",
            "7: else: unknown key; there are handoff, endpoint, database, logging, general",
        ),
        (
            with_general("order: newst"),
            "7: general.order: must be one of oldest, newest, not 'newst'; did you mean newest?",
        ),
        (with_general("num_threads: 65"), "7: general.num_threads: must be at most 64, not '65'"),
        (with_general("chunk_size: 0"), "7: general.chunk_size: must be at least 1, not '0'"),
        (with_general("pause: 0s"), "7: general.pause: must be more than 0, not '0s'"),
        (with_general("num_threads: 1.5"), "7: general.num_threads: must be a whole number, not '1.5'"),
        (with_general("num_threads: [1]"), "7: general.num_threads: must be a whole number, not a list"),
        (with_general("retry: 5"), "7: general.retry: must be a mapping, not '5'"),
        (with_general("exclude_list: x"), "7: general.exclude_list: must be a list, not 'x'"),
        (
            with_general("exclude_list: ['a?']"),
            "7: general.exclude_list[0]: must not match every path, as 'a?' does",
        ),
        (
            with_general("bandwidth: 3kB/s"),
            "7: general.bandwidth: must be at least 1kB/s for each of the 4 workers",
        ),
        (with_endpoint("notes: perhaps"), "7: endpoint.notes: must be true or false, not 'perhaps'"),
        (
            with_endpoint("user: -oProxyCommand=x"),
            "7: endpoint.user: must be a plain name, not '-oProxyCommand=x'",
        ),
        (with_endpoint("user: [a]"), "7: endpoint.user: must be text, not a list"),
        (
            with_endpoint("dest: x"),
            "7: endpoint.dest: is reserved for the placeholder that the manager fills in itself",
        ),
        (
            with_endpoint("staging: ~/staging"),
            "7: endpoint.staging: must be an absolute path at the endpoint, not '~/staging'",
        ),
        (with_endpoint("staging: /data/../x"), "7: endpoint.staging: must not contain '..': '/data/../x'"),
        (
            with_endpoint("staging: /data/buffer/"),
            "7: endpoint.staging: must not be the same as endpoint.buffer",
        ),
        (
            with_endpoint("staging: /data/buffer/.s"),
            "7: endpoint.staging: must not lie inside endpoint.buffer (/data/buffer)",
        ),
        (
            with_endpoint("staging: /data"),
            "7: endpoint.staging: must not contain endpoint.buffer (/data/buffer)",
        ),
        (
            with_endpoint("ssh: {identity: ~nobody-of-that-name/id}"),
            "7: endpoint.ssh.identity: must be a path; there is no user 'nobody-of-that-name'",
        ),
        (
            with_endpoint('ssh: {identity: "a\\nb"}'),
            "7: endpoint.ssh.identity: must not hold a line break or another control character: 'a\\nb'",
        ),
        (
            MINIMAL + "logging: {format: '%(name)'}",
            "7: logging.format: must be a format of Python's logging; '%(name)' is none: incomplete format",
        ),
        (
            MINIMAL + "logging: {level: LOUD}",
            "7: logging.level: must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, not 'LOUD'",
        ),
        (
            MINIMAL + "logging: {file: /data/buffer/log}",
            "7: logging.file: must not lie inside handoff.buffer (/data/buffer)",
        ),
        (
            MINIMAL + "database: {engine: 'sqlite:////data/buffer/x.db'}",
            "7: database.engine: must not lie inside handoff.buffer (/data/buffer)",
        ),
        (
            MINIMAL.replace("/data/holding", "/data/buffer"),
            "3: handoff.holding: must not be the same as handoff.buffer",
        ),
        (
            MINIMAL.replace("/data/holding", "/data/buffer/h"),
            "3: handoff.holding: must not lie inside handoff.buffer (/data/buffer)",
        ),
        (
            MINIMAL.replace("/data/holding", "/data"),
            "3: handoff.holding: must not contain handoff.buffer (/data/buffer)",
        ),
        (MINIMAL.replace("/data/holding", ""), "3: handoff.holding: must be a path, not nothing"),
        (MINIMAL.replace("/data/holding", "''"), "3: handoff.holding: must not be empty"),
        (MINIMAL.replace("  host: archive.example.edu\n", ""), "4: endpoint.host: is required"),
    ],
)
def test_a_problem_says_what_is_wanted(text: str, problem: str, refused: Refused) -> None:
    assert refused(text) == [problem]


def test_a_section_that_is_missing_is_told(refused: Refused) -> None:
    assert refused("general: {}\n") == ["1: endpoint: is required", "1: handoff: is required"]


@pytest.mark.parametrize(
    ("commands", "problem"),
    [
        ("transfer: 'cp {file}'", "transfer: must contain {dest}"),
        (
            "transfer: 'cp x {dest}'",
            "transfer: must contain {file}, or {batch} for several files of one directory",
        ),
        ("transfer: 'cp {file} {batch} {dest}'", "transfer: must contain either {file} or {batch}, not both"),
        (
            "transfer: 'cp x{batch} {dest}'",
            "transfer: must have {batch} as a word of its own; it becomes one argument for each file",
        ),
        (
            "transfer: 'cp {file} {dest} {command}'",
            "transfer: can't use {command}, which has no meaning here",
        ),
        (
            "transfer: 'cp {file} {dest} {prot}', remote: 'r {command}'",
            "transfer: uses {prot}, but there is no endpoint.prot; did you mean {port}?",
        ),
        ("transfer: 'cp {file} {user}@x:{dest}'", "transfer: uses {user}, but there is no endpoint.user"),
        ("transfer: 'cp {file} {ssh}:{dest}'", "transfer: uses {ssh}, but there is no endpoint.ssh"),
        ("transfer: 'cp \"{file} {dest}'", "transfer: can't be split into words: no closing quotation"),
        ("transfer: 'cp {file} {dest}', remote: 'ssh {host}'", "remote: must contain {command}"),
        (
            "transfer: 'cp {file} {dest}', remote: 'ssh {host} {command} {file}'",
            "remote: can't use {file}, which has no meaning here",
        ),
        (
            "remote: 'ssh {host} {command}'",
            "remote: needs endpoint.commands.transfer beside it; rsync and scp connect by endpoint.ssh",
        ),
    ],
)
def test_a_command_that_cannot_work_is_refused(commands: str, problem: str, refused: Refused) -> None:
    own_key = "port: 22\n  " if "{prot}" in commands else ""
    found = refused(f"{MINIMAL}  {own_key}commands: {{{commands}}}\n")
    assert [line for line in found if "endpoint.port" not in line] == [
        f"{8 if own_key else 7}: endpoint.commands.{problem}"
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ControlPath", "the manager keeps connections of its own"),
        ("controlmaster", "the manager keeps connections of its own"),
        ("ControlPersist", "the manager keeps connections of its own"),
        ("BatchMode", "nobody is there to answer or to read"),
        ("RequestTTY", "nobody is there to answer or to read"),
        ("RemoteCommand", "the manager decides what is run"),
        ("LocalForward", "the manager's connections forward nothing"),
        ("Port", "there is a key for it, endpoint.ssh.port"),
        ("Match", "it belongs into a file, which endpoint.ssh.config names"),
    ],
)
def test_ssh_options_that_are_the_managers_own_are_refused(name: str, reason: str, refused: Refused) -> None:
    (problem,) = refused(with_endpoint(f"ssh: {{options: {{{name}: x}}}}"))
    assert problem == f"7: endpoint.ssh.options.{name}: can't be set here: {reason}"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("{'Proxy Command': x}", "must be the name of an ssh option, as in `man ssh_config`"),
        (
            "{Compression: yes, compression: no}",
            "is given twice, as Compression before; ssh does not mind capitals",
        ),
        (
            '{Compression: "yes\\nPort 1"}',
            "must not hold a line break or another control character: 'yes\\nPort 1'",
        ),
        ("{Compression: }", "must be text, not nothing"),
    ],
)
def test_an_ssh_option_is_a_word_with_a_line_of_text(options: str, problem: str, refused: Refused) -> None:
    (found,) = refused(with_endpoint(f"ssh: {{options: {options}}}"))
    assert found.split(": ", 2)[2] == problem


def test_holding_inside_the_buffer_is_seen_through_a_symbolic_link(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (problem,) = refused("handoff: {buffer: real, holding: link/holding}\nendpoint: {host: h, buffer: /b}\n")
    assert "handoff.holding: must not lie inside handoff.buffer" in problem


def test_a_default_ledger_in_the_buffer_is_told(refused: Refused) -> None:
    text = MINIMAL.replace("buffer: /data/buffer\n  holding", "buffer: /state\n  holding")
    assert refused(text) == ["1: database.engine: must not lie inside handoff.buffer (/state)"]


def test_what_is_ignored_is_noted(loaded: Load) -> None:
    text = with_endpoint(
        "user: x",
        "transfer: auto",
        "ssh: {port: 22}",
        "commands: {transfer: 'scp {file} {user}@{host}:{dest}', remote: 'ssh {host} {command}'}",
    )
    text += "logging: {rotate: SIZE, format: '%(name)s'}\ngeneral: {bandwidth: 5MB/s}\n"
    notes = loaded(text).notes()
    assert [note.partition(":")[0] for note in notes] == [
        "logging.format",
        "logging.rotate",
        "endpoint.transfer",
        "general.bandwidth",
        "endpoint.ssh",
    ]


@pytest.mark.parametrize("text", [MINIMAL, ORIGINAL, with_general("exclude_list: ['^a$${b}', 'é\\n']")])
def test_the_effective_configuration_loads_as_the_same_one(text: str, loaded: Load) -> None:
    config = loaded(text)
    shown = effective(config)
    again = loaded(shown)
    # What is ignored is not shown.
    assert again.model_dump() == config.model_dump()
    assert effective(again) == shown


def test_the_effective_configuration_is_readable(loaded: Load) -> None:
    lines = effective(loaded(MINIMAL)).splitlines()
    assert "  maxbytes: 0" in lines
    assert "  expiration_time: 1d" in lines
    assert "  batch_bytes: 256MB" in lines
    assert "  engine: sqlite:////state/dbb/site.db" in lines


def test_a_configuration_cannot_be_changed(loaded: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        loaded(MINIMAL).general.pause = 2.0


NAMES = sorted(
    {str(key[-1]) for key, _ in fields(HandoffConfig)} | {"x", "ControlPath", "Compression", "file"}
)
TEXTS = "/a /a/b ~ 0 1 -1 1e999 30s 1GB null ( {file} ' {command} sqlite:////a/x.db ${x ${x:-1} é SIZE %(x)s"
SCALARS = st.sampled_from(
    [*TEXTS.split(), "", "{x} {dest} {file}", "\x7f", "9" * 400, None, 0, 1.5, True],
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)
fuzzed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def outcome(path: Path) -> HandoffConfig | list[str]:
    try:
        return load(path, {})
    except ConfigError as error:
        return error.message.splitlines()


@fuzzed
@given(st.dictionaries(st.sampled_from(["handoff", "endpoint", "database", "logging", "general"]), ANYTHING))
def test_whatever_stands_in_the_file_is_loaded_or_told(tmp_path: Path, whole: dict[str, object]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(whole))
    match outcome(path):
        case HandoffConfig() as config:
            assert effective(config)
        case list() as lines:
            assert all(line.startswith(f"{path}:1: ") for line in lines)


@fuzzed
@given(st.sampled_from([key for key, _ in fields(HandoffConfig) if len(key) > 1]), ANYTHING)
def test_one_odd_value_is_loaded_or_told_at_its_key(tmp_path: Path, key: Key, value: object) -> None:
    path = tmp_path / "config.yaml"
    odd = {key[-1]: value} if len(key) == 2 else {key[1]: {key[2]: value}}
    whole: dict[str, dict[str, object]] = {
        "handoff": {"buffer": "/data/buffer", "holding": "/data/holding"},
        "endpoint": {"host": "archive.example.edu", "buffer": "/data/buffer"},
    }
    whole[str(key[0])] = {**whole.get(str(key[0]), {}), **odd}  # type: ignore[dict-item]
    path.write_text(json.dumps(whole))
    match outcome(path):
        case HandoffConfig() as config:
            path.write_text(effective(config))
            assert load(path, {}).model_dump() == config.model_dump()
        case list() as lines:
            assert all(line.startswith(f"{path}:1: {key[0]}.") for line in lines)
