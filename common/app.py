"""The commands that both managers share, built from a small description of one of them."""

import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Generic, NoReturn, Protocol, Self, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from common import __version__
from common.clock import now_ms
from common.errors import ConfigError, DbbError
from common.lifecycle import Lifecycle
from common.supervisor import Supervisor

# What draws, reads or works is imported by the command that needs it, so that help and completion cost
# next to nothing.
if TYPE_CHECKING:
    # Some versions of typer have click's names from click, and some their own.
    from typer._click.core import Context, Parameter

    from common.config.sections import LoggingConfig
    from common.console import Screen
    from common.health import Check
    from common.ledger.reader import LedgerReader
    from common.ledger.rows import VersionStory
    from common.pool import Reserve
    from common.serving import Audience, Plan
    from common.status import Status, Words


ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The configuration, a YAML file.", show_default=False)
]
Debug = Annotated[bool, typer.Option("--debug", help="Tell all details, and errors with their tracebacks.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Paths = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH", help="Files or directories, relative to the buffer.", show_default=False),
]


class Configured(Protocol):
    """What the shared commands read of any manager's configuration."""

    @property
    def ledger_path(self) -> Path: ...

    @property
    def logging(self) -> "LoggingConfig": ...

    def notes(self) -> tuple[str, ...]: ...

    def changes(self, after: Self) -> Iterable[str]: ...


Config = TypeVar("Config", bound=Configured)


_LISTED = 100
"""Files in trouble that are listed unless somebody wants more."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a manager's files lie on this machine."""

    roots: tuple[bytes, ...]
    """Directories below which its files are named by the same relative paths; the buffer first."""
    disks: dict[str, bytes]
    """What it writes to, by the names that `status` uses."""
    host: str | None = None
    """The other site's, for a manager that has one."""
    exclude: tuple[str, ...] = ()
    """What fits one of these regular expressions is left alone in the buffer."""


@dataclass(frozen=True, slots=True)
class ManagerKind(Generic[Config]):
    """All that makes one manager's commands."""

    program: str
    about: str
    example: str
    """A configuration's file name, for the examples in the help."""
    lifecycle: Lifecycle
    load: Callable[[Path], Config]
    effective: Callable[[Config], str]
    """The configuration with its defaults, as YAML."""
    places: Callable[[Config], Places]
    plan: "Callable[[Config], Plan]"
    """What its manager is made of."""
    prepare: str
    """The module that its workers import as they start."""
    checks: "Callable[[Path, Config, bool], Sequence[Check]]"
    """What to look at; the flag asks for the canary too."""
    words: "Callable[[], Words] | None" = None
    """The original manager's words for the states, where it had some."""
    verbs: tuple[tuple[str, Callable[..., None], str], ...] = ()
    """Those of this manager alone, each with its function and an example of its arguments."""


@dataclass(slots=True)
class _Present(Generic[Config]):
    """The configuration that is in force; a running manager may take another one, with the same ledger."""

    config: Config


class _Group(TyperGroup):
    """The program itself, in whose help no type stands beside a flag."""

    def get_params(self, ctx: "Context") -> "list[Parameter]":
        return _bare(super().get_params(ctx))


class _Command(TyperCommand):
    """A verb, in whose help no type stands beside a flag, and no braces around what it needs."""

    def get_params(self, ctx: "Context") -> "list[Parameter]":
        return _bare(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: "Context") -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


def run(kind: ManagerKind[Config], arguments: Sequence[str] | None = None, *, name: str = "") -> NoReturn:
    """Run one command line of a manager, which may be called by another `name`, to its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # First of all: what it takes out of the environment is not for workers.
    supervisor = Supervisor.of(os.environ)
    with _reserve(kind.prepare, words) as reserve:
        execute(name or kind.program, build(kind, supervisor, reserve), words)


def execute(program: str, app: typer.Typer, words: Sequence[str]) -> NoReturn:
    """Run a command line to its exit code; whatever goes wrong is told without a traceback."""
    debug = "--debug" in (words[: words.index("--")] if "--" in words else words)
    try:
        app(args=words, prog_name=program)
    except DbbError as error:
        _tell(program, error, debug=debug)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _forget_output()
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the edge of the program: nothing foreseen is left to catch
        unexpected = DbbError(
            f"unexpected {type(error).__name__}: {error}",
            "this is a fault of the program: run it again with --debug, and report what it prints",
        )
        _tell(program, unexpected, debug=debug)
        sys.exit(1)
    raise AssertionError("a command line always ends with an exit code")


def frame(program: str, about: str) -> typer.Typer:
    """An application with the options that stand before a verb, and no verb yet."""
    app = typer.Typer(
        name=program,
        help=about,
        cls=_Group,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def tell_version(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{program} {__version__}")
            raise typer.Exit

    @app.callback()
    def options(
        version: Annotated[
            bool,
            typer.Option(
                "--version", help="Print the version and exit.", callback=tell_version, is_eager=True
            ),
        ] = False,
        debug: Debug = False,
    ) -> None: ...

    return app


def build(kind: ManagerKind[Config], supervisor: Supervisor, reserve: "Reserve | None") -> typer.Typer:
    """The typer application of one manager, with who watches over it and the reserve that a start needs."""
    app = frame(kind.program, kind.about)
    for verb, function, example in (*Commands(kind, supervisor, reserve).verbs(), *kind.verbs):
        epilog = f"Example: {kind.program} {verb} {example}"
        app.command(verb, cls=_Command, help=_help(function), epilog=epilog)(function)
    return app


def _reserve(prepare: str, words: Sequence[str]) -> "AbstractContextManager[Reserve | None]":
    """What a start takes its workers from, which get ready while command line and configuration are read."""
    if next((word for word in words if not word.startswith("-")), "") not in ("start", "run"):
        return nullcontext()
    from common.pool import Reserve

    reserve = Reserve(prepare)
    # A manager in the background starts its own, and help needs none.
    if not {"--daemon", "--help", "-h"} & set(words):
        reserve.call_up()
    return reserve


def _bare(params: "list[Parameter]") -> "list[Parameter]":
    for param in params:
        if getattr(param, "is_flag", False):
            # Of some versions of typer, <bool>, as if a value were wanted.
            param.metavar = ""
    return params


def _help(function: Callable[..., None]) -> str:
    """A docstring whose paragraphs are one line each, for the terminal to wrap."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (function.__doc__ or "").split("\n\n"))


def relative_path(named: str, places: Places) -> bytes:
    """The path of a file as the ledger has it, from one on the command line.

    It is relative to the buffer, or absolute and below one of the manager's directories.

    Raises
    ------
    DbbError
        It lies elsewhere.
    """
    path = os.path.normpath(os.fsencode(named))
    if not os.path.isabs(path) and path.split(b"/")[0] != b"..":
        return path
    directory, name = os.path.split(path)
    for candidate in (path, os.path.join(os.path.realpath(directory), name)):
        for top in (*places.roots, *map(os.path.realpath, places.roots)):
            if candidate.startswith(top.rstrip(b"/") + b"/"):
                return os.path.relpath(candidate, top)
    from common.wording import path as said

    tops = " or ".join(said(root) for root in places.roots)
    raise DbbError(f"{said(path)} does not lie below {tops}", "name it relative to the buffer")


class Commands(Generic[Config]):
    """One method for each verb."""

    def __init__(self, kind: ManagerKind[Config], supervisor: Supervisor, reserve: "Reserve | None") -> None:
        self._kind = kind
        self._supervisor = supervisor
        self._reserve = reserve

    def verbs(self) -> Iterator[tuple[str, Callable[..., None], str]]:
        """Each verb with its function and an example of its arguments, in the order of the help."""
        config = self._kind.example
        yield "start", self.start, f"{config} --daemon --quiet"
        yield "stop", self.stop, f"{config} --timeout 300"
        yield "status", self.status, f"{config} --watch"
        yield "retry", self.retry, f"{config} night1/image.fits"
        yield "history", self.history, f"{config} night1/image.fits"
        yield "check", self.check, f"{config} --canary"
        yield "validate", self.validate, f"{config} --show"
        yield "run", self.run, config
        yield "initdb", self.initdb, config

    def start(
        self,
        config: ConfigPath,
        once: Annotated[
            bool, typer.Option("--once", help="Work until nothing is left to do, then exit.")
        ] = False,
        daemon: Annotated[
            bool, typer.Option("--daemon", help="Detach, and return once the manager is up.")
        ] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
        live: Annotated[bool, typer.Option("--live", help="Show the status table while it runs.")] = False,
        debug: Debug = False,
    ) -> None:
        """Run the manager until it is told to stop.

        When another manager already works with the same ledger, this says so (nothing with --quiet) and
        succeeds, so that cron may call it every minute.
        """
        if daemon and (once or live):
            raise typer.BadParameter("goes neither with --once nor with --live", param_hint="--daemon")
        if self._reserve and not daemon:
            # Together with the first one, the second would have kept this process from coming so far.
            self._reserve.call_up()
        loaded = self._kind.load(config)
        from common.ledger.lock import LedgerHeld, holder

        pid = holder(loaded.ledger_path)
        if pid is not None:
            self._tell_holder(loaded, pid, quiet=quiet)
            return
        from common.serving import UNDELIVERED, Audience

        try:
            if daemon:
                self._launch(config, loaded, quiet=quiet, debug=debug)
                return
            direct = partial(_configure_logs, quiet=quiet, debug=debug)
            present = _Present(loaded)
            with self._live(config, present) if live and not quiet else nullcontext() as tick:
                audience = Audience(self._supervisor, tick=tick)
                code = self._serve(config, present, audience, direct, once=once)
        except LedgerHeld as held:
            self._tell_holder(loaded, held.pid, quiet=quiet)
            return
        if code == UNDELIVERED:
            hint = f"`{self._kind.program} status {config}` tells which wait, and for what"
            self._screen().error(DbbError("not every file could go its way", hint))
        raise typer.Exit(code)

    def run(
        self,
        config: ConfigPath,
        once: Annotated[bool, typer.Option("--once", help="As for start.")] = False,
        daemon: Annotated[bool, typer.Option("--daemon", help="As for start.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="As for start.")] = False,
        live: Annotated[bool, typer.Option("--live", help="As for start.")] = False,
        debug: Debug = False,
    ) -> None:
        """The same as start, by its old name."""
        self.start(config, once=once, daemon=daemon, quiet=quiet, live=live, debug=debug)

    def stop(
        self,
        config: ConfigPath,
        timeout: Annotated[
            float, typer.Option(min=0, help="Seconds to wait until it is told to give up what is in flight.")
        ] = 60.0,
        debug: Debug = False,
    ) -> None:
        """Let the running manager finish what is in flight, and wait for its end."""
        from common.control import stop
        from common.ledger.lock import holder

        ledger = self._kind.load(config).ledger_path
        stopped = stop(lambda: holder(ledger), timeout)
        self._screen().stopped(stopped)
        raise typer.Exit(1 if stopped.how == "still running" else 0)

    def status(
        self,
        config: ConfigPath,
        watch: Annotated[bool, typer.Option("--watch", help="Keep it up to date until Ctrl-C.")] = False,
        failed: Annotated[
            bool, typer.Option("--failed", help="List the files in trouble instead, one by one.")
        ] = False,
        cause: Annotated[
            str | None, typer.Option(metavar="TEXT", help="With --failed: whose cause has this in it.")
        ] = None,
        limit: Annotated[
            int, typer.Option(min=0, metavar="N", help="With --failed: so many files at most; 0: all.")
        ] = _LISTED,
        original: Annotated[
            bool, typer.Option("--original", help="Count files by the words that the original manager had.")
        ] = False,
        as_json: AsJson = False,
        debug: Debug = False,
    ) -> None:
        """Tell what the manager does, how fast, and what waits for what.

        It reads only, and works whether the manager runs or not. With --watch --json there is one
        object a line. With --failed it lists what failed or waits for a person's decision, each file
        under a name that history and retry take from the clipboard.
        """
        if failed:
            if watch or original:
                other = "--watch" if watch else "--original"
                raise typer.BadParameter(f"does not go with {other}", param_hint="--failed")
            self._list_troubles(config, cause, limit or None, as_json=as_json)
            return
        if cause is not None or limit != _LISTED:
            raise typer.BadParameter("go with --failed only", param_hint="--cause and --limit")
        if original and self._kind.words is None:
            raise typer.BadParameter(
                "the original of this manager had no words of its own", param_hint="--original"
            )
        present = _Present(self._kind.load(config))
        with self._look(config, present, original=original) as look:
            self._show(look, watch=watch, as_json=as_json)

    def retry(
        self,
        config: ConfigPath,
        paths: Paths = None,
        cause: Annotated[
            str | None, typer.Option(metavar="TEXT", help="Only what failed for a cause with this in it.")
        ] = None,
        debug: Debug = False,
    ) -> None:
        """Try files that failed again at once, with their attempts reset.

        Without a PATH: all that failed. Files that wait for a person's decision (a conflict, say) are taken
        up only where a PATH or a cause asks for them. It works whether the manager runs or not.
        """
        from common.ledger.rows import FAILED
        from common.retrying import retry

        kind, loaded = self._kind, self._kind.load(config)
        places = kind.places(loaded)
        named = tuple(self._meant(loaded, path, places) for path in paths or ())
        states = kind.lifecycle.trouble if named or cause else (FAILED,)
        retried = retry(loaded.ledger_path, kind.lifecycle, named, cause, states, now_ms())
        self._screen().retried(retried)
        raise typer.Exit(1 if retried.has_missed else 0)

    def history(
        self,
        config: ConfigPath,
        path: Annotated[
            str,
            typer.Argument(metavar="PATH", help="Of one file, relative to the buffer.", show_default=False),
        ],
        as_json: AsJson = False,
        debug: Debug = False,
    ) -> None:
        """Tell one file's whole story, and what it waits for now."""
        from common import story
        from common.ledger.lock import holder

        kind, loaded = self._kind, self._kind.load(config)
        places = kind.places(loaded)
        named = self._meant(loaded, path, places)
        with self._reader(loaded) as reader:
            is_running = holder(loaded.ledger_path) is not None
            start = "" if is_running else f"{kind.program} start {_word(config)}"
            if reader is None or not (versions := reader.history(named)):
                raise _unknown(named, places, start)
            obstacle = story.obstacle(reader, kind.program, is_running=is_running)
        told = story.tell(
            kind.program,
            named,
            versions,
            kind.lifecycle,
            now_ms(),
            obstacle,
            _word(config),
            is_running=is_running,
            lying="" if _is_one_of(versions, named, places) else _why_unknown(named, places, start),
        )
        screen = self._screen()
        screen.say_json(story.as_json(told)) if as_json else screen.story(told)

    def check(
        self,
        config: ConfigPath,
        canary: Annotated[
            bool,
            typer.Option("--canary", help="Write at the endpoint: send a file the whole way, and remove it."),
        ] = False,
        as_json: AsJson = False,
        debug: Debug = False,
    ) -> None:
        """Look at all that can be known before files depend on it.

        It only reads, on both sides, unless --canary sends a file. Exits with 0 when all is well, 4 when
        something FAILs, 5 when there are warnings only.
        """
        from common import health

        screen = self._screen()
        try:
            loaded = self._kind.load(config)
        except ConfigError as error:
            found = iter([health.fail("configuration", error.message, error.hint)])
        else:
            found = health.examine(self._kind.checks(config, loaded, canary))
        results = list(found) if as_json else screen.results(found)
        if as_json:
            screen.say_json(health.as_json(results))
        raise typer.Exit(health.exit_code(health.worst(results)))

    def validate(
        self,
        config: ConfigPath,
        show: Annotated[
            bool, typer.Option("--show", help="Print the configuration with all its defaults.")
        ] = False,
        debug: Debug = False,
    ) -> None:
        """Tell every problem of the configuration at once."""
        loaded = self._kind.load(config)
        screen = self._screen()
        if show:
            screen.say(self._kind.effective(loaded).rstrip("\n"))
            return
        for note in (*loaded.notes(), *_log_note(loaded.logging.file)):
            screen.say(f"{config}: {note}")
        screen.say(f"{config}: is valid")

    def initdb(self, config: ConfigPath, debug: Debug = False) -> None:
        """Create the ledger and exit; start does the same by itself."""
        from common.ledger.ledger import Ledger

        path = self._kind.load(config).ledger_path
        existed = path.exists()
        with Ledger.open(path, self._kind.lifecycle):
            pass
        self._screen().say(f"{path}: {'is there already' if existed else 'created'}")

    def _show(self, look: "Callable[[], Status]", *, watch: bool, as_json: bool) -> None:
        """Print the status once, or keep it up to date until Ctrl-C."""
        from common import status

        screen = self._screen()

        def draw() -> None:
            screen.say_json(status.as_json(look())) if as_json else screen.status(look())

        if not watch:
            draw()
        elif screen.is_terminal and not as_json:
            _until_interrupted(lambda: screen.live(look), seconds=0.1)
        else:
            _until_interrupted(lambda: nullcontext(draw), seconds=2)

    def _list_troubles(self, config: Path, cause: str | None, limit: int | None, *, as_json: bool) -> None:
        from common import trouble

        kind, screen = self._kind, self._screen()
        with self._reader(kind.load(config)) as reader:
            found = trouble.troubles(reader, kind.program, _word(config), cause=cause, limit=limit)
            if as_json:
                screen.say_json_list(trouble.head(found), "files", map(trouble.as_json, found.files))
            else:
                screen.troubles(found, now_ms(), chosen=bool(cause))

    def _serve(
        self,
        config: Path,
        present: "_Present[Config]",
        audience: "Audience",
        direct: "Callable[[LoggingConfig], None]",
        *,
        once: bool = False,
    ) -> int:
        """Be the manager, with its messages where `direct` has them sent; gives the exit code."""
        from common.pool import Reserve
        from common.renewal import Renewal
        from common.serving import serve

        def take(coming: Config) -> None:
            present.config = coming
            direct(coming.logging)

        kind, loaded = self._kind, present.config
        take(loaded)
        renew = Renewal(loaded, partial(kind.load, config), kind.plan, take)
        reserve = self._reserve or Reserve(kind.prepare)
        return serve(kind.plan(loaded), audience, reserve, once=once, renew=renew)

    @contextmanager
    def _live(self, config: Path, present: "_Present[Config]") -> Iterator[Callable[[], None]]:
        """The status table on the terminal; gives what draws it anew."""
        with self._look(config, present) as look, self._screen().live(look) as tick:
            yield tick

    def _launch(self, config: Path, loaded: Config, *, quiet: bool, debug: bool) -> None:
        """Run the manager in the background; returns in both processes."""
        from common.control import detach
        from common.logs import unwritable
        from common.serving import Audience

        wanted, beside = loaded.logging.file, loaded.ledger_path.with_suffix(".log")
        log = wanted or beside
        if wanted is not None and (why := unwritable(wanted)):
            log = beside
            elsewhere = f"its messages go to {log} until it can"
            error = DbbError(f"{wanted} can't be written: {why}", elsewhere)
            _tell(self._kind.program, error, debug=False)

        def direct(settings: "LoggingConfig") -> None:
            # Nobody sees its standard error any more; without a limit its messages would fill the disk.
            limits = {"rotate": "SIZE", "maxbytes": 10_000_000, "backup_count": 3}
            spare = settings.model_copy(update={"file": beside, **limits})
            settings = settings if settings.file else spare
            _configure_logs(
                settings, spare=None if settings.file == beside else spare, quiet=quiet, debug=debug
            )

        def serve(ready: Callable[[], None]) -> int:
            # Whoever supervises the process that was started does not know the one in the background.
            return self._serve(config, _Present(loaded), Audience(Supervisor(), ready), direct)

        launched = detach(serve, log)
        if launched.message and not (quiet and launched.exit_code == 0):
            _tell(self._kind.program, DbbError(launched.message, launched.hint), debug=False)
        elif launched.pid is not None and not quiet:
            program = self._kind.program
            self._screen().say(f"{program} is up, process {launched.pid}; its messages go to {log}")
        raise typer.Exit(launched.exit_code)

    def _tell_holder(self, loaded: Config, pid: int, *, quiet: bool) -> None:
        if quiet:
            return
        since = ""
        with suppress(DbbError), self._reader(loaded) as reader:
            row = reader.manager() if reader else None
            if row is not None and row.pid == pid:
                from common.wording import moment

                since = f", since {moment(row.started_at)}"
        process = f"process {pid}" if pid > 0 else "in another container or on another host"
        self._screen().say(f"{self._kind.program} is running already ({process}{since})")

    def _meant(self, loaded: Config, named: str, places: Places) -> bytes:
        """The path that is meant: where the ledger does not know it, perhaps one that was shown like this."""
        from common.wording import path_told

        path = relative_path(named, places)
        shown = path_told(path)
        if shown == path:
            return path
        with self._reader(loaded) as reader:
            if reader is None or reader.history(path) or reader.knows_below(path):
                return path
            is_known = bool(reader.history(shown)) or reader.knows_below(shown)
        return shown if is_known else path

    @contextmanager
    def _look(
        self, config: Path, present: "_Present[Config]", *, original: bool = False
    ) -> Iterator[Callable[[], "Status"]]:
        """A function that gives the present status each time; the ledger may come into being meanwhile."""
        from common.ledger.lock import holder
        from common.status import Scene, gather

        kind, ledger = self._kind, present.config.ledger_path
        words = kind.words() if original and kind.words else None

        def scene() -> Scene:
            places = kind.places(present.config)
            return Scene(
                kind.program,
                config.stem,
                kind.lifecycle,
                places.host,
                places.disks,
                _word(config),
                words,
                str(ledger),
            )

        with ExitStack() as stack:
            reader: LedgerReader | None = None

            def look() -> "Status":
                nonlocal reader
                reader = reader or stack.enter_context(self._reader(present.config))
                return gather(scene(), reader, holder=holder(ledger), now_ms=now_ms())

            yield look

    @contextmanager
    def _reader(self, loaded: Config) -> "Iterator[LedgerReader | None]":
        """The ledger; None while there is none."""
        from common.health import is_there
        from common.ledger.reader import LedgerReader

        if not is_there(loaded.ledger_path):
            yield None
            return
        with LedgerReader.open(loaded.ledger_path, manager=self._kind.lifecycle.manager) as reader:
            yield reader

    def _screen(self) -> "Screen":
        from common.console import Screen

        return Screen(self._kind.program)


def _configure_logs(
    settings: "LoggingConfig", *, quiet: bool, debug: bool, spare: "LoggingConfig | None" = None
) -> None:
    from common.logs import configure

    configure(
        settings,
        spare=spare,
        level="DEBUG" if debug else None,
        stream_level=logging.ERROR if quiet else logging.NOTSET,
    )


def _log_note(file: Path | None) -> tuple[str, ...]:
    """What is to be told of a log that can't be written here and now."""
    from common.logs import unwritable

    why = "" if file is None else unwritable(file)
    return (f"logging.file: {why}; until that is mended messages go to standard error",) if why else ()


def _word(config: Path) -> str:
    """The configuration's file as a word for a shell."""
    from common.wording import word

    return word(os.fsencode(config))


def _until_interrupted(
    live: Callable[[], AbstractContextManager[Callable[[], None]]], *, seconds: float
) -> None:
    with suppress(KeyboardInterrupt), live() as tick:
        while True:
            tick()
            time.sleep(seconds)


def _unknown(path: bytes, places: Places, start: str) -> DbbError:
    """Why the ledger does not know a file; `start` is the command that starts the manager where none runs."""
    from common.wording import path as said

    there = os.path.join(places.roots[0], path)
    if os.path.isdir(there):
        return DbbError(f"{said(path)} is a directory", "name one of the files in it")
    if os.path.lexists(there):
        return DbbError(
            f"the ledger does not know {said(path)} yet, though it lies in the buffer",
            _why_unknown(path, places, start),
        )
    return DbbError(
        f"the ledger does not know {said(path)}", f"name the file by its path below {said(places.roots[0])}"
    )


def _why_unknown(path: bytes, places: Places, start: str) -> str:
    """Why what lies in the buffer under that name is not known yet; empty if nothing does."""
    there = os.path.join(places.roots[0], path)
    if os.path.isdir(there) or not os.path.lexists(there):
        return ""
    return (
        _left_alone(there, os.fsdecode(path), places.exclude)
        or (f"no manager runs: `{start}`" if start else "")
        or "it has not settled: it is still open, or was changed less than general.settle ago"
    )


def _is_one_of(versions: "Sequence[VersionStory]", path: bytes, places: Places) -> bool:
    """Whether what lies under that name is a known version: an endpoint may keep files where they are."""
    try:
        there = os.lstat(os.path.join(places.roots[0], path))
    except OSError:
        return False
    found = there.st_size, there.st_mtime_ns
    return any((version.fence.size, version.fence.mtime_ns) == found for version in versions)


def _left_alone(there: bytes, path: str, exclude: Sequence[str]) -> str:
    """Why a manager passes over what lies in its buffer; empty if it does not."""
    if not os.path.isfile(there) or os.path.islink(there):
        return "it is no regular file, and left alone"
    pattern = next((pattern for pattern in exclude if re.search(pattern, path)), None)
    return "" if pattern is None else f"it is left alone, for `{pattern}` of exclude_list fits it"


def _tell(program: str, error: DbbError, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    from common.console import Screen

    Screen(program).error(error)


def _forget_output() -> None:
    """Whoever read it is gone (``status | head``); what is still buffered must not be missed at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
