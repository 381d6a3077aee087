"""What the log tells of another configuration."""

from pathlib import Path

from handoff.config import load

_BASE = """
handoff: {buffer: /data/buffer, holding: /data/holding}
endpoint:
  host: summit
  buffer: /data/in
  token: first-secret
  commands: {transfer: 'tool --key=old-secret {token} {file} {dest}', remote: 'ssh {host} "{command}"'}
"""


def _changes(directory: Path, before: str, after: str) -> list[str]:
    paths = directory / "before.yaml", directory / "after.yaml"
    old, new = (
        (path.write_text(text), load(path, {"XDG_STATE_HOME": "/state"}))[1]
        for path, text in zip(paths, (before, after), strict=True)
    )
    return list(old.changes(new.model_copy(update={"database": old.database})))


def test_the_same_has_no_changes(tmp_path: Path) -> None:
    assert _changes(tmp_path, _BASE, _BASE) == []


def test_each_key_is_told_with_its_values(tmp_path: Path) -> None:
    after = (
        _BASE.replace("summit", "archive")
        + "general: {pause: 5, retry: {attempts: 3}}\nlogging: {json: true}\n"
    )
    assert _changes(tmp_path, _BASE, after) == [
        'endpoint.host: "summit" → "archive"',
        "logging.json: false → true",
        "general.pause: 1.0 → 5.0",
        "general.retry.attempts: 10 → 3",
    ]


def test_what_may_be_a_password_is_not_shown(tmp_path: Path) -> None:
    after = _BASE.replace("first-secret", "second-secret").replace("old-secret", "new-secret")
    assert _changes(tmp_path, _BASE, after) == [
        "endpoint.commands.transfer: is another",
        "endpoint.token: is another",
    ]
