"""Everything that is drawn: results, the live table, errors. The only user of rich.

Whatever comes from files, peers or other programs goes through `wording` first and is never read
as markup, so that no name and no message can draw on the operator's terminal.
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from common import wording
from common.control import Stopped
from common.errors import DbbError
from common.health import Result, Verdict, worst
from common.ledger.reader import InTrouble
from common.ledger.rows import Receipt, Ride, Transition
from common.retrying import Retried
from common.status import Delivered, Disk, EndpointState, Forecast, Kind, Load, StateCount, Status, Trouble
from common.story import Chapter, Story
from common.supervisor import priority
from common.trouble import CauseGroup, Troubles

_VERDICT_STYLES = {Verdict.OK: "green", Verdict.WARN: "bold yellow", Verdict.FAIL: "bold red"}
_KIND_STYLES: dict[Kind, str] = {
    "waiting": "",
    "working": "cyan",
    "done": "green",
    "trouble": "bold red",
    "aside": "yellow",
}
_LOCATED = re.compile(r"[^:\n]+:\d+: ")
_PIPE_WIDTH = 100
"""Columns where the output is no terminal and COLUMNS does not say."""
_UNFOLDED = 10_000
"""Columns for what is not to be folded at all."""
_WIDE = 140
"""Columns from which on the blocks of the status stand side by side."""
_PART = 0.1
"""Seconds from which on a part of a phase is told."""
_SILENT = 10.0
"""Seconds without a heartbeat, which comes once a second, that are worth a word."""
_FAST = 0.25
"""Seconds between two pictures of the live table at least."""
_SLOW = 5.0
"""Seconds between two lines where there is no terminal for a table."""
_RARE = 30.0
"""Seconds between two lines about work that somebody may have left alone for hours."""
_SHARE = 150
"""A picture that took long to draw is followed by a pause so many times as long."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long piece of work has come."""

    told: str
    """In one line."""
    share: float | None = None
    """Of the whole, from 0 to 1; None while nobody knows."""


class Screen:
    """The standard output and standard error of one command.

    Parameters
    ----------
    width
        In columns; None: as the terminal, the variable COLUMNS or, for a pipe, 100.
    """

    def __init__(self, program: str, width: int | None = None) -> None:
        self.program = program
        self._out = _console(sys.stdout, width)
        self._err = _console(sys.stderr, width)

    @property
    def is_terminal(self) -> bool:
        return self._out.is_terminal

    def say(self, message: str) -> None:
        self._out.print(Text(wording.text(message)), soft_wrap=True)

    def say_json(self, value: object) -> None:
        self._write(json.dumps(value, ensure_ascii=True, allow_nan=False) + "\n", flush=True)

    def say_json_list(self, head: Mapping[str, object], name: str, items: Iterable[object]) -> None:
        """One object whose last member is a list, which may be too long to be kept in memory."""
        self._write(f"{json.dumps(head, allow_nan=False)[:-1]}, {json.dumps(name)}: [")
        for position, item in enumerate(items):
            self._write((", " if position else "") + json.dumps(item, allow_nan=False))
        self._write("]}\n", flush=True)

    def error(self, error: DbbError) -> None:
        """What happened and what to do; a panel on a terminal, else lines that a log can hold.

        Lines that begin with a file and a line's number stay so, for editors that go there.
        """
        message, hint = wording.text(error.message), wording.text(error.hint)
        if not self._err.is_terminal:
            prefix = "" if _LOCATED.match(message) else f"{self.program}: "
            text = f"{prefix}{message}" + (f"\n  hint: {hint}" if hint else "")
            mark = priority(sys.stderr, logging.ERROR)
            self._err.print(Text("\n".join(f"{mark}{line}" for line in text.split("\n"))), soft_wrap=True)
            return
        body = Text(message)
        if hint:
            body.append("\n")
            body.append(hint, style="bold")
        self._err.print(
            Panel(body, title=f"{self.program}: error", title_align="left", border_style="red", expand=False)
        )

    def status(self, status: Status) -> None:
        self._draw(_status(status, self._out.width))

    def story(self, story: Story) -> None:
        for position, chapter in enumerate(story.chapters):
            if position:
                self._out.print()
            self._draw(_chapter(story, chapter, len(story.chapters) - position), is_text=True)

    def troubles(self, troubles: Troubles, now_ms: int, *, chosen: bool) -> None:
        """List files one by one. Nothing is folded, so that a name can be copied whole."""
        if not troubles.groups:
            self.say(f"no file is in trouble{' for that' if chosen else ''}")
            return
        groups = {(group.state, group.cause): group for group in troubles.groups}
        for file in troubles.files:
            group = groups.pop((file.state, file.cause), None)
            if group:
                self._print_whole(_group(group))
            self._print_whole(_in_trouble(file, now_ms))
        if troubles.listed < troubles.number:
            rest = wording.files(troubles.number - troubles.listed)
            self._print_whole(Text(f"and {rest} more: --limit 0 lists all, --cause TEXT chooses"))
        self._write("", flush=True)

    def stopped(self, stopped: Stopped) -> None:
        who, span = f"{self.program} (process {stopped.pid})", wording.duration(stopped.seconds)
        self.say(
            {
                "not running": f"{self.program} is not running",
                "finished": f"{who} finished what was in flight and ended after {span}",
                "gave up": f"{who} ended after {span}; what was in flight is resumed at the next start",
                "still running": f"{who} has not ended after {span}: it hangs; `kill -KILL {stopped.pid}`"
                " ends it, and the next start resumes what was in flight",
            }[stopped.how]
        )

    def retried(self, retried: Retried) -> None:
        self.say(f"{wording.files(retried.files)} to try again")
        for miss in retried.misses:
            where = f"it is {', '.join(miss.states)}" if miss.states else "it is not known to the ledger"
            if miss.is_directory:
                where = "no file below it is in trouble for that"
            self.say(f"{wording.word(miss.path)}: nothing to try again: {where}")
        if retried.cause:
            causes = ", ".join(f"'{cause}'" for cause in retried.causes) or "no file is in trouble"
            self.say(f"no cause has '{retried.cause}' in it: {causes}")

    def results(self, results: Iterator[Result]) -> list[Result]:
        """Draw each result as soon as it is known, then the sum."""
        seen = []
        for result in results:
            seen.append(result)
            self._draw(_result(result), is_text=True)
            if result.hint:
                # Not folded: it is often a command that wants to be copied.
                self._out.print(Text(f"      → {wording.text(result.hint)}", style="bold"), soft_wrap=True)
        self._draw(_sum(seen))
        return seen

    @contextmanager
    def live(self, look: Callable[[], Status]) -> Iterator[Callable[[], None]]:
        """A table that the function it yields brings up to date; log lines appear above it.

        Call that function as often as is convenient: it draws four times a second at most, and so
        seldom that it costs less than a hundredth of the time. Where the output is no terminal it
        tells one line now and then instead.
        """
        if not self.is_terminal:
            yield _Paced(lambda: self._line(look()), least=_SLOW).tick
            self._line(look())
            return
        with Live(console=self._out, auto_refresh=False, redirect_stderr=self._err.is_terminal) as live:

            def draw() -> None:
                live.update(_Picture(self._out, _status(look(), self._out.width)), refresh=True)

            yield _Paced(draw, least=_FAST).tick
            draw()

    @contextmanager
    def progress(self, look: Callable[[], Progress]) -> Iterator[Callable[[], None]]:
        """A bar, kept up to date like the table of `live`; what is said meanwhile appears above it."""
        if not self.is_terminal:
            yield _Paced(lambda: self.say(look().told), least=_RARE, after=_RARE).tick
            return
        with Live(console=self._out, auto_refresh=False, transient=True) as live:
            yield _Paced(lambda: live.update(_progress(look()), refresh=True), least=_FAST).tick

    def _draw(self, picture: RenderableType, *, is_text: bool = False) -> None:
        """Print it; off a terminal, what `is_text` is not folded, and nothing is filled up with blanks."""
        if self.is_terminal:
            self._out.print(picture)
            return
        with self._out.capture() as captured:
            self._out.print(picture, width=_UNFOLDED if is_text else None)
        lines = captured.get().splitlines()
        self._out.file.write("".join(f"{line.rstrip()}\n" for line in lines))
        self._out.file.flush()

    def _print_whole(self, text: Text) -> None:
        """Print it unfolded; off a terminal, by the shortest way, for there may be millions."""
        if self.is_terminal:
            self._out.print(text, soft_wrap=True)
        else:
            self._write(f"{text.plain}\n")

    def _write(self, text: str, *, flush: bool = False) -> None:
        """Write what is not drawn; whoever reads it may go away without an error."""
        try:
            self._out.file.write(text)
            if flush:
                self._out.file.flush()
        except BrokenPipeError:
            self._out.on_broken_pipe()

    def _line(self, status: Status) -> None:
        self.say(_line(status))


class _Paced:
    """Calls a function seldom enough: not before `least` seconds, and many times its own cost."""

    def __init__(self, draw: Callable[[], None], *, least: float, after: float = 0.0) -> None:
        self._draw, self._least = draw, least
        self._next = time.monotonic() + after

    def tick(self) -> None:
        started = time.monotonic()
        if started < self._next:
            return
        cpu = time.thread_time()
        self._draw()
        self._next = started + max(self._least, (time.thread_time() - cpu) * _SHARE)


class _Picture:
    """Something drawn once and for all: the live table is printed again after each line of the log."""

    def __init__(self, console: Console, content: RenderableType) -> None:
        self._lines = console.render_lines(content, pad=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._lines:
            yield from line
            yield Segment.line()


class _Console(Console):
    """A console whose reader may go away (``status | head``) without an error."""

    def on_broken_pipe(self) -> NoReturn:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0)


def _console(stream: TextIO, width: int | None) -> Console:
    if width is None and not stream.isatty() and "COLUMNS" not in os.environ:
        width = _PIPE_WIDTH
    return _Console(stderr=stream is sys.stderr, markup=False, highlight=False, emoji=False, width=width)


def _progress(progress: Progress) -> RenderableType:
    row = Table.grid(padding=(0, 2))
    row.add_column(width=40)
    row.add_column(overflow="fold")
    unknown = progress.share is None
    bar = ProgressBar(total=None if unknown else 1.0, completed=progress.share or 0.0, pulse=unknown)
    row.add_row(bar, Text(wording.text(progress.told)))
    return row


def _status(status: Status, width: int) -> RenderableType:
    parts: list[RenderableType] = [_head(status), Text()]
    states = _states(status.words or status.states)
    right = [_rates(status.goal, status.rates), _disks(status.disks, status.forecast)]
    blocks = Table.grid(padding=(0, 4))
    if width >= _WIDE:
        blocks.add_row(states, *right)
    else:
        blocks.add_row(states, Group(right[0], Text(), right[1]))
    parts.append(Padding(blocks, (0, 0, 0, 1)))
    if status.loads:
        parts += [Text(), _loads(status.loads, width)]
    if status.troubles:
        parts += [Text(), _troubles(status.troubles, status.at_ms)]
    return Group(*parts)


def _head(status: Status) -> Table:
    head = Table.grid(padding=(0, 2))
    head.add_column(style="dim", no_wrap=True)
    head.add_column(overflow="fold")
    head.add_row(f" {status.program}", _manager(status))
    if status.endpoint is not None:
        head.add_row(" endpoint", _endpoint(status.endpoint, status))
    if status.manager.paused:
        head.add_row(" paused", Text(wording.text(status.manager.paused), style="bold yellow"))
    if status.manager.was_paused:
        head.add_row(" paused", Text(f"before it ended: {wording.text(status.manager.was_paused)}"))
    if status.oldest_waiting is not None:
        head.add_row(
            " waiting",
            f"the oldest file, on its way or failed, for {wording.duration(status.oldest_waiting)}",
        )
    return head


def _manager(status: Status) -> Text:
    manager = status.manager
    line = Text(f"{wording.text(status.name)}  ")
    if manager.since_ms is None:
        ledger = f" with the ledger {wording.text(status.ledger)}" if status.ledger else ""
        return line.append("● never started", style="yellow").append(ledger)
    since = _since(manager.since_ms, status.at_ms)
    if not manager.running:
        return line.append("● not running", style="bold red").append(f" for {since}")
    line.append("● running", style="green").append(f" for {since}, pid {manager.pid}")
    if manager.renewed_ms is not None:
        line.append(f", reloaded {wording.minute(manager.renewed_ms)}")
    if manager.heartbeat_age is not None and manager.heartbeat_age > _SILENT:
        line.append(f", silent for {wording.duration(manager.heartbeat_age)}", style="bold red")
    return line


def _endpoint(endpoint: EndpointState, status: Status) -> Text:
    line = Text(f"{wording.text(endpoint.host)}  " if endpoint.host else "")
    if endpoint.reachable is None:
        why = "not asked yet" if status.manager.running else "unknown while the manager does not run"
        return line.append(f"● {why}", style="yellow")
    line.append(*(("● reachable", "green") if endpoint.reachable else ("● unreachable", "bold red")))
    if endpoint.since_ms is not None:
        line.append(f" for {_since(endpoint.since_ms, status.at_ms)}")
    if endpoint.reason and not endpoint.reachable and endpoint.reason not in status.manager.paused:
        line.append(f"\n{wording.text(endpoint.reason)}")
    return line


def _since(then_ms: int, now_ms: int) -> str:
    return f"{wording.duration((now_ms - then_ms) / 1000)} (since {wording.minute(then_ms)})"


def _block(*headings: str) -> Table:
    """A table without lines: its first column to the left, the others to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left", no_wrap=True)
    return table


def _states(states: Sequence[StateCount]) -> Table:
    table = _block("state", "files", "bytes")
    for state in states:
        style = _KIND_STYLES[state.kind] if state.files else "dim"
        table.add_row(state.state, wording.count(state.files), wording.size(state.bytes), style=style)
    return table


def _rates(goal: str, rates: Sequence[Delivered]) -> Table:
    table = _block(f"{goal} in", "files", "files/s", "bytes/s")
    for rate in rates:
        table.add_row(
            wording.duration(rate.seconds),
            wording.count(rate.files),
            wording.frequency(rate.files / rate.seconds),
            wording.rate(rate.bytes / rate.seconds),
            style="" if rate.files else "dim",
        )
    return table


def _disks(disks: Sequence[Disk], forecast: Forecast | None) -> Table:
    table = _block("free space", "bytes", "share", "full in")
    for disk in disks:
        share = disk.free_bytes / disk.total_bytes if disk.total_bytes else None
        full = ""
        if disk.name == "buffer":
            full = "unknown" if forecast is None else "does not fill"
            if forecast is not None and forecast.full_in is not None:
                full = f"~ {wording.duration(forecast.full_in)}"
        table.add_row(
            disk.name.replace("_", " "),
            wording.size(disk.free_bytes),
            "" if share is None else f"{share:.0%}",
            full,
            style="bold red" if share is not None and share < 0.05 else "",
        )
    return table


def _loads(loads: Sequence[Load], width: int) -> Table:
    wide, bars = width >= _WIDE, width >= _PIPE_WIDTH
    table = _block("  #", "doing", "files", "bytes", "done", *([""] if bars else []), "rate", "left")
    table.columns[1].justify = "left"
    table.add_column("file", no_wrap=True)
    for load in loads:
        # Names of phases only, for a state (sending) and a phase (send) look like two things.
        phase = load.phase or "starting"
        share = min(1.0, load.done / load.bytes) if load.bytes else 1.0
        bar = [ProgressBar(total=1, completed=share, width=24 if wide else 12)] if bars else []
        table.add_row(
            f"  {load.worker}",
            f"{load.step} ({phase})" if wide else phase,
            wording.count(load.files),
            wording.size(load.bytes),
            *bar,
            f"{share:.0%}",
            "" if load.rate is None else wording.rate(load.rate),
            "" if load.left is None else wording.duration(load.left),
            Text(wording.tail(load.path, width - (102 if wide else 76 if bars else 58)), style="cyan"),
        )
    return table


def _troubles(troubles: Sequence[Trouble], now_ms: int) -> Table:
    table = _block(" files", "state")
    table.columns[0].justify = "right"
    table.columns[1].justify = "left"
    table.add_column("why", overflow="fold", ratio=1)
    table.add_column("next try", justify="right", no_wrap=True)
    for trouble in troubles:
        path, reason = wording.word(trouble.example), wording.text(trouble.reason)
        lines = [
            Text("" if trouble.cause == trouble.state else wording.text(trouble.cause), style="bold"),
            Text("" if path in reason else path, style="cyan"),
            Text("" if reason == trouble.cause else reason, style="dim"),
            Text(f"→ {wording.text(trouble.hint)}" if trouble.hint else ""),
        ]
        why = Text("\n").join(line for line in lines if line)
        table.add_row(
            f" {wording.count(trouble.files)}",
            Text(trouble.state, style="red"),
            why,
            _next(trouble.next_try_ms, now_ms),
        )
    return table


def _next(next_try_ms: int | None, now_ms: int) -> str:
    if next_try_ms is None:
        return "on `retry`"
    wait = (next_try_ms - now_ms) / 1000
    return f"in {wording.duration(wait)}" if wait > 0 else "now"


def _group(group: CauseGroup) -> Text:
    cause = "" if group.cause == group.state else f": {wording.text(group.cause)}"
    line = Text(f"{wording.files(group.files)} {group.state}{cause}", style="bold red")
    return line.append(f"\n  → {wording.text(group.hint)}", style="not red")


def _in_trouble(file: InTrouble, now_ms: int) -> Text:
    tries = f"{wording.attempts(file.attempts)}; " if file.attempts else ""
    line = Text(wording.word(file.path), style="cyan")
    reason = file.reason.removeprefix(f"{wording.path(file.path)}: ")
    told = f"\n      {wording.text(reason)}" if reason else ""
    return line.append(f"{told}\n      {tries}next try {_next(file.due_at, now_ms)}", style="dim")


def _line(status: Status) -> str:
    counts = ", ".join(
        f"{count.state} {wording.count(count.files)}" for count in status.states if count.files
    )
    rate = status.rates[0] if status.rates else None
    speed = f"; {wording.rate(rate.bytes / rate.seconds)} over {rate.label}" if rate and rate.files else ""
    return f"{status.program}: {counts or 'no files'}{speed}"


def _chapter(story: Story, chapter: Chapter, number: int) -> RenderableType:
    version = chapter.version
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    name = Text(wording.word(story.path), style="bold")
    if len(story.chapters) > 1:
        name.append(f"  version {number} of {len(story.chapters)}", style="not bold")
    facts.add_row(" file", name)
    facts.add_row(" state", version.state)
    facts.add_row(" waits for", wording.text(chapter.waits_for))
    if chapter.hint:
        facts.add_row(" hint", Text(wording.text(chapter.hint), style="bold"))
    modified = wording.moment(version.fence.mtime_ns // 1_000_000)
    facts.add_row(" content", f"{wording.size(version.fence.size)}, modified {modified}")
    if version.checksum:
        facts.add_row(f" {version.checksum.algorithm}", version.checksum.digest)
    if version.origin:
        sent, note = wording.moment(version.origin.sent_at), wording.word(version.origin.note)
        facts.add_row(" origin", f"sent {sent}, says the delivery note {note}")
    parts: list[RenderableType] = [facts, Text(), _transitions(version.transitions)]
    if version.rides:
        parts += [Text(), _rides(version.rides, story.at_ms)]
    if version.receipts:
        parts += [Text(), _receipts(version.receipts)]
    return Group(*parts)


def _transitions(transitions: Sequence[Transition]) -> Table:
    table = _block(" when", "after", "state", "batch")
    table.columns[2].justify = "left"
    table.add_column("why", overflow="fold")
    before: int | None = None
    for transition in transitions:
        table.add_row(
            f" {wording.instant(transition.at)}",
            "" if before is None else wording.duration((transition.at - before) / 1000),
            transition.target or "joined a known version",
            "" if transition.batch_id is None else str(transition.batch_id),
            wording.text(transition.reason),
        )
        before = transition.at
    return table


def _rides(rides: Sequence[Ride], now_ms: int) -> Table:
    table = _block(" batch", "state", "worker", "took", "files", "bytes", "rate")
    table.columns[1].justify = "left"
    table.add_column("phases", overflow="fold")
    for ride in rides:
        seconds = ((ride.finished_at or now_ms) - ride.started_at) / 1000
        told = ", ".join(
            f"{phase} {wording.duration(spent)}"
            for phase, spent in ride.phases.items()
            # Of a phase's own parts, only what took long enough to be a reason.
            if "." not in phase or spent >= _PART
        )
        if ride.exit_code:
            told += f"\nexit code {ride.exit_code}"
        if ride.error:
            told += f"\n{wording.text(ride.error)}"
        table.add_row(
            f" {ride.batch_id}",
            ride.step,
            str(ride.worker),
            wording.duration(seconds) if ride.finished_at else f"{wording.duration(seconds)}…",
            wording.count(ride.files),
            wording.size(ride.bytes),
            wording.rate(ride.bytes / seconds) if seconds > 0 and ride.bytes and ride.finished_at else "",
            told.strip(),
        )
    return table


def _receipts(receipts: Sequence[Receipt]) -> Table:
    table = _block(" when", "at the endpoint")
    table.columns[1].justify = "left"
    for receipt in receipts:
        table.add_row(f" {wording.instant(receipt.at)}", receipt.state)
    return table


def _result(result: Result) -> RenderableType:
    row = Table.grid(padding=(0, 2))
    row.add_column(width=4)
    row.add_column(width=23, overflow="fold")
    row.add_column(overflow="fold")
    verdict = Text(result.verdict.value, style=_VERDICT_STYLES[result.verdict])
    row.add_row(verdict, result.name, Text(wording.text(result.detail)))
    return row


def _sum(results: Sequence[Result]) -> Text:
    counts = {verdict: sum(result.verdict == verdict for result in results) for verdict in Verdict}
    words = ", ".join(f"{number} {verdict.value}" for verdict, number in counts.items())
    return Text(words, style=_VERDICT_STYLES[worst(results)])
