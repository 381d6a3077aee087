"""Pages of docs/ as somebody follows them who types each command where the page says.

A page's commands stand in fenced blocks that are marked `sh`, or not at all; `sh endpoint` marks those
that are typed at the endpoint. They are run by bash as they stand, but for some words (hosts, accounts and
directories) that mean the test's own.
"""

import os
import pwd
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import psutil
import pytest

from common.ledger.lock import holder
from common.process import run
from tests.loopback import REPOSITORY
from tests.runs import eventually

DOCS = REPOSITORY / "docs"
PROGRAMS = Path(sys.executable).parent
"""Where `hdfmgr` and `endmgr` are."""
FOLLOWED: set[tuple[str, str]] = set()
"""Pages and headings that tests follow, as `follows` has gathered them."""

MACHINES = {
    "README.md": ("Install it",),
    "systemd.md": ("From nothing to a running manager", "Every day"),
}
"""Pages, and headings in them, that tests/containers/test_machines.py follows."""

Test = TypeVar("Test", bound=Callable[..., None])

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_COMMANDS = ("", "sh", "sh endpoint")
_REPORT = """trap 'printf "%s %s\\n" $? "$BASH_COMMAND" >>"$FAILED"' ERR\n"""


@dataclass(frozen=True, slots=True)
class Block:
    """Commands of a page that are typed in one go."""

    page: str
    heading: str
    text: str
    at_endpoint: bool


def blocks(page: str) -> list[Block]:
    """The commands of a page, in their order."""
    text = place(page).read_text()
    found = []
    for fence in _FENCE.finditer(text):
        if fence["info"] in _COMMANDS:
            # A comment in a block looks like a heading, too.
            heading = _HEADING.findall(_FENCE.sub("", text[: fence.start()]))[-1]
            found.append(Block(page, heading, fence["text"], fence["info"] == "sh endpoint"))
    return found


def prose(page: str) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", place(page).read_text())


def place(page: str) -> Path:
    """Where a page is."""
    return REPOSITORY / page if page == "README.md" else DOCS / page


def follows(page: str, *headings: str) -> Callable[[Test], Test]:
    """Marks a test that runs all commands below these headings of a page; it gets them as `walk`."""
    FOLLOWED.update((page, heading) for heading in headings)
    return pytest.mark.parametrize("walk", [(page, headings)], indirect=True, ids=[page])


@dataclass(slots=True)
class Walk:
    """Somebody who follows a page; a context manager, at whose end every command has been typed.

    The managers that were started on the way, with ledgers beside `directory` or below it, are ended with it.
    """

    directory: Path
    """Where all that the commands make is."""
    todo: list[Block]
    words: dict[str, str] = field(default_factory=dict)
    """What stands in the page, and what is typed in its place, at either site."""
    there: dict[str, str] = field(default_factory=dict)
    """More of them, for the endpoint."""
    here: dict[str, str] = field(default_factory=dict)
    """More of them, for the handoff site."""
    programs: Path = PROGRAMS
    """Where programs are found first."""

    def __enter__(self) -> Self:
        for home in (self.home, self.endpoint_home):
            home.mkdir(parents=True)
        self.words |= {"sudo": "", "observer": user(), "keeper": user()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in managers(self.directory.parent):
            process.kill()
        eventually(lambda: not managers(self.directory.parent))
        assert error or not self.todo, f"nobody has run {self.todo[0]}"

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def endpoint_home(self) -> Path:
        return self.directory / "endpoint" / "home"

    def step(self, *, failing: Mapping[str, int] | None = None) -> str:
        """Run the next block; gives what it prints.

        `failing` are the commands, by their first two words, that may end with an exit code other than
        0, and with which.
        """
        block = self.todo.pop(0)
        failed = self.directory / "failed"
        failed.write_text("")
        done = run(
            ["bash", "-c", _REPORT + self.typed(block)],
            timeout=60,
            env=self.environment(at_endpoint=block.at_endpoint) | {"FAILED": str(failed)},
            cwd=self.endpoint_home if block.at_endpoint else self.home,
        )
        said = (done.stdout + done.stderr).decode(errors="backslashreplace")
        codes = {
            " ".join(line.split()[1:3]): int(line.split()[0]) for line in failed.read_text().splitlines()
        }
        assert codes.items() <= (failing or {}).items(), f"{block.text}\n{said}"
        return said

    def typed(self, block: Block) -> str:
        """What is typed where a block stands in the page."""
        return replaced(block.text, self.words | (self.there if block.at_endpoint else self.here))

    def environment(self, *, at_endpoint: bool) -> dict[str, str]:
        """What a login there sets; the terminal is so wide that no line is broken."""
        home = self.endpoint_home if at_endpoint else self.home
        return {
            "COLUMNS": "1000",
            "HOME": str(home),
            "PATH": f"{self.programs}:{PROGRAMS}:{os.environ['PATH']}",
            "XDG_STATE_HOME": str(home / ".local" / "state"),
        }


def replaced(text: str, words: Mapping[str, str]) -> str:
    """A text with other words in the place of some."""
    if not words:
        return text
    longest_first = sorted(words, key=len, reverse=True)
    pattern = "|".join(re.escape(word) for word in longest_first)
    whole = rf"(?<![\w.])(?:{pattern})(?![\w-])"
    return re.sub(whole, lambda found: words[found[0]], text)


def user() -> str:
    """The account that runs the tests, and stands for every other."""
    return pwd.getpwuid(os.geteuid()).pw_name


def managers(directory: Path) -> list[psutil.Process]:
    """Those that run with a ledger below a directory."""
    found = []
    for lock in directory.rglob("*.lock"):
        pid = holder(lock.with_suffix(""))
        with suppress(psutil.NoSuchProcess):
            found += [psutil.Process(pid)] if pid else []
    return found


def minute(walk: Walk, tables: Path, *, at_endpoint: bool) -> list[tuple[int, bytes]]:
    """What cron does each minute with the files of its directory: each command's exit code and output."""
    environment = walk.environment(at_endpoint=at_endpoint) | {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    text = "".join(table.read_text() for table in tables.iterdir())
    lines = re.findall(r"^(?:\* ){5} *\S+ +(/.*)$", text, re.MULTILINE)
    ended = [run(["sh", "-c", line], timeout=60, env=environment, cwd=walk.home) for line in lines]
    return [(done.exit_code, done.stdout + done.stderr) for done in ended]
