"""An endpoint site for tests: its directories, its configuration, and files that are delivered into it."""

import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.process import Background, Completed, run
from tests.loopback import REPOSITORY, merged, write_file


class Archive:
    """A buffer, a storage and a staging directory, with a configuration and a manager's commands."""

    kind = "endpoint"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.buffer = directory / "buffer"
        self.storage = directory / "storage"
        self.staging = directory / "staging"
        self.ledger = directory / "ledger.db"
        self.catalogue = directory / "catalogue.db"
        self.config = directory / "endpoint.yaml"
        for path in (self.buffer, self.storage, self.staging):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def output(self) -> Path:
        return self.directory / "output"

    def write_config(self, **overrides: object) -> Path:
        """Write the configuration; mappings in `overrides` are merged, all else replaces.

        The catalogue is the embedded one, unless `overrides` name another.
        """
        config: dict[str, object] = {
            "endpoint": {
                "buffer": str(self.buffer),
                "storage": str(self.storage),
                "staging": str(self.staging),
            },
            "database": {"engine": f"sqlite:///{self.ledger}"},
            "general": {"settle": 0, "pause": 0.2, "min_free": 0, "retry": {"first": 0.2, "most": 1}},
        }
        config = merged(config, overrides)
        embedded = {"ingester": {"catalogue": "sqlite", "config": {"path": str(self.catalogue)}}}
        if "catalogue" not in (config.get("ingester") or {}):  # type: ignore[operator]
            config = merged(config, embedded)
        # JSON is YAML.
        self.config.write_text(json.dumps(config, indent=2))
        return self.config

    def command(
        self, *args: str | Path, timeout: float = 60, env: Mapping[str, str] | None = None
    ) -> Completed:
        """Run `endmgr` with these arguments to its end."""
        return run(self._argv(args), timeout=timeout, env=self._environment(env), cwd=REPOSITORY)

    def start(
        self, *args: str | Path, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> Background:
        """Run `endmgr` beside the test, by way of `prefix`; what it prints goes into `output`."""
        argv = [*prefix, *self._argv(args)]
        return Background(argv, env=self._environment(env), cwd=REPOSITORY, output=self.output)

    def once(self, *options: str) -> int:
        """Run a manager until nothing is left that it can do; gives its exit code."""
        return self.command("start", self.config, "--once", *options).exit_code

    def deliver(
        self, content: Mapping[bytes, bytes], *, note: str | None = "batch-0", **lies: object
    ) -> dict[bytes, bytes]:
        """Put files into the buffer as the handoff manager does, the note first; `lies` go into its lines."""
        if note is not None:
            self.note(note, *(line(path, data) | lies for path, data in content.items()))
        for path, data in content.items():
            part = write_file(self.staging, b"part", data)
            target = os.path.join(os.fsencode(self.buffer), path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(part, target)
        return dict(content)

    def note(self, name: str, *lines: Mapping[str, object]) -> Path:
        """Write a delivery note."""
        return self.note_text(name, "".join(json.dumps(line) + "\n" for line in lines))

    def note_text(self, name: str, text: str) -> Path:
        """Write what stands for a delivery note, whatever it is."""
        place = self.staging / ".notes" / f"{name}.jsonl"
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
        return place

    def notes(self) -> list[str]:
        """The names of the notes that have not been retired."""
        return sorted(path.stem for path in (self.staging / ".notes").glob("*.jsonl"))

    def receipts(self) -> list[dict[str, Any]]:
        """The lines of all receipts."""
        files = sorted((self.staging / ".receipts").glob("*.jsonl"))
        return [json.loads(text) for path in files for text in path.read_text().splitlines()]

    def catalogued(self) -> list[bytes]:
        """The names in the embedded catalogue, in their order."""
        if not self.catalogue.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.catalogue}?mode=ro", uri=True)) as connection:
            # It may be there for a moment before its tables are.
            if not connection.execute("SELECT * FROM sqlite_master WHERE name = 'files'").fetchall():
                return []
            return sorted(os.fsencode(name) for (name,) in connection.execute("SELECT name FROM files"))

    def status(self) -> Any:
        """What `status --json` tells."""
        return json.loads(self.command("status", self.config, "--json").stdout)

    def _argv(self, args: tuple[str | Path | bytes, ...]) -> list[str]:
        return [sys.executable, "-m", "endpoint", *(str(arg) for arg in args)]

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(self.directory / "state"), **(env or {})}


def line(path: bytes, content: bytes) -> dict[str, object]:
    """The line of a delivery note for a file."""
    return {
        "path": path.decode(),
        "size": len(content),
        "algorithm": "sha256",
        "digest": hashlib.sha256(content).hexdigest(),
        "sent": datetime.now(UTC).isoformat(),
    }
