"""The host of a catalogue: keeps it in a process of its own and finds the file that it dies of.

A catalogue may hang, crash, leave files without an answer or print what it likes. Each costs the file
at fault: when a batch ends badly, what has no result yet is run again in smaller parts, at last
alone, each time in a process that is as good as new.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from common.errors import ProcessError
from endpoint.catalogues.contract import CatalogueError, Request, Result, Verdict
from endpoint.catalogues.loading import Source
from endpoint.catalogues.service import Order, Word, pack
from endpoint.catalogues.tenancy import Answer, DiedError, StalledError, Tenant

log = logging.getLogger(__name__)

_MANY = 32
"""Files that a crash leaves over are halved beyond this; one by one is quicker below it."""
_ROW = 3
"""So many files in a row that fail, each alone, may be none of the files' fault."""
_ENOUGH = 20
"""So many are not followed by another one of their batch, to see whether that fares better."""
_HANGS = 3
"""Nor are so many that hang, which takes long."""

_DOUBTFUL = (Verdict.CRASHED, Verdict.FAILED, Verdict.NO_ANSWER, Verdict.TIMED_OUT)
"""What may be the fault of the catalogue as well as that of the file."""
_PROOF = (Verdict.INGESTED, Verdict.ALREADY, Verdict.CONFLICT)
"""What no catalogue says that is at fault itself."""
_VERDICTS = {str(verdict): verdict for verdict in Verdict}


class Host:
    """Runs one catalogue; a context manager. Its process starts when it is needed, and is kept.

    Parameters
    ----------
    source
        How the catalogue is found.
    config
        What it is made from; it is pickled.
    timeout
        Seconds that it may take from one result to the next.
    start_timeout
        Seconds that it may take to be imported and made, and again to open.
    env
        Set for its process on top of this one's environment.
    """

    def __init__(
        self,
        source: Source,
        config: Mapping[str, object],
        *,
        timeout: float,
        start_timeout: float = 120.0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._source = source
        self._config = dict(config)
        self._timeout = timeout
        self._start_timeout = start_timeout
        self._env = env
        self._tenant: Tenant | None = None
        self._odd = False
        self._suspicion = _Suspicion()

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def remake(self, config: Mapping[str, object]) -> None:
        """Make the catalogue from another configuration when its process starts the next time."""
        self._config = dict(config)

    @property
    def pid(self) -> int | None:
        """Of the catalogue's process, while there is one."""
        return self._tenant.pid if self._tenant else None

    def version(self) -> str:
        """What ingests, with its version. The catalogue is made for that, and not opened.

        Raises
        ------
        CatalogueError
            It can't be made.
        """
        answer = self._call(self._made(), Order.VERSION)
        return str(answer[1])

    def open(self) -> None:
        """Open the catalogue, if it is not open yet: for those who want to know whether it can be.

        Raises
        ------
        CatalogueError
            It can't be used now.
        """
        self._opened()

    def ingest(self, requests: Sequence[Request], *, failed_before: Iterable[int] = ()) -> Iterator[Result]:
        """Exactly one result for each request, as they come in; the ids must differ.

        Parameters
        ----------
        failed_before
            Ids of files that have been blamed already: they say nothing against the catalogue.

        Raises
        ------
        CatalogueError
            The catalogue as a whole can't be used. What has not been yielded until then has no result, and no
            blame.
        """
        parts = deque([tuple(requests)] if requests else [])
        self._suspicion.begin(failed_before)
        while parts:
            run = _Run(parts.popleft())
            for result in self._results(run):
                yield from self._suspicion.hear(result)
            if run.blames:
                yield from self._suspicion.hear(Result(run.part[0].id, run.verdict, run.reason))
            else:
                parts.extendleft(reversed(run.parts()))
            self._suspicion.weigh(has_more=bool(parts))
        yield from self._suspicion.blame()

    def close(self, patience: float = 5.0) -> None:
        """Let the catalogue close, and end what has not gone after so many seconds."""
        if self._tenant is not None:
            self._tenant.close(patience)
            self._tenant = None

    def _results(self, run: "_Run") -> Iterator[Result]:
        """The results of one run as they come; afterwards it knows how it ended."""
        tenant = self._opened()
        run.fresh, tenant.has_served = not tenant.has_served, True
        has_ended = False
        tenant.send((Order.INGEST, [pack(request) for request in run.part]))
        try:
            while not has_ended:
                for answer in tenant.hear(self._timeout):
                    # Numbers first: there may be a hundred thousand of them.
                    if type(answer[0]) is int and (result := run.result(answer)):
                        yield result
                    elif run.ends_with(answer):
                        has_ended = True
                    else:
                        self._wonder(answer)
        except (DiedError, StalledError) as trouble:
            run.end(*self._explained(trouble))
        finally:
            # Also when nobody wants the rest: what it still has to say would be taken for the next answer.
            if not has_ended:
                self._drop()
        if run.error is not None:
            self.close()
            raise run.error

    def _wonder(self, answer: Answer) -> None:
        if not self._odd:
            # Once: a catalogue that does so does it for every file.
            self._odd = True
            what = answer[1] if answer[0] == Word.ODD else f"not asked, or not any more: {answer}"
            log.warning("ignored an answer of the catalogue: %s", what)

    def _explained(self, trouble: DiedError | StalledError) -> tuple[Verdict, str]:
        tenant = self._tenant
        assert tenant is not None
        if isinstance(trouble, StalledError):
            return Verdict.TIMED_OUT, f"no progress within {self._timeout:g} s{tenant.last_words}"
        return Verdict.CRASHED, f"the catalogue's process {trouble}{tenant.last_words}"

    def _opened(self) -> Tenant:
        tenant = self._made()
        if not tenant.is_open:
            self._call(tenant, Order.OPEN)
            tenant.is_open = True
        return tenant

    def _made(self) -> Tenant:
        if self._tenant is not None and self._tenant.has_ended:
            self._drop()
        if self._tenant is None:
            try:
                self._tenant = Tenant(self._env)
            except ProcessError as error:
                raise CatalogueError(error.message, error.hint) from error
            self._call(self._tenant, Order.MAKE, self._source, self._config)
        return self._tenant

    def _call(self, tenant: Tenant, *order: object) -> Answer:
        """Give an order and wait for its one answer."""
        tenant.send(order)
        try:
            answer = tenant.hear(self._start_timeout)[-1]
        except StalledError as error:
            words = tenant.last_words
            self._drop()
            raise CatalogueError(
                f"the catalogue did not start within {self._start_timeout:g} s{words}",
                "look at what it waits for",
            ) from error
        except DiedError as error:
            words = tenant.last_words
            self._drop()
            raise CatalogueError(
                f"the catalogue's process {error} as it started{words}",
                "start it by hand, in the manager's Python, to see why",
            ) from error
        match answer:
            case [Word.DONE, *_]:
                return answer
            case [Word.ERROR, str(message), str(hint)]:
                self.close()
                raise CatalogueError(message, hint)
        words = tenant.last_words
        self.close()
        raise CatalogueError(
            f"the catalogue could not be started: {' '.join(str(word) for word in answer[1:])}",
            f"this is a fault of the catalogue{words}",
        )

    def _drop(self) -> None:
        if self._tenant is not None:
            self._tenant.kill()
            self._tenant = None


class _Run:
    """One attempt at some files: what is left of them, and how it ended."""

    def __init__(self, part: tuple[Request, ...]) -> None:
        self.part = part
        self.fresh = True
        """Whether the process had done nothing before."""
        self.error: CatalogueError | None = None
        self.verdict = Verdict.NO_ANSWER
        self.reason = "the catalogue said nothing on it"
        self._left = {request.id: request for request in part}

    @property
    def left(self) -> tuple[Request, ...]:
        """What has no result."""
        return tuple(self._left.values())

    @property
    def blames(self) -> bool:
        """Whether there is no other culprit than the one file that it was about.

        A process that dies may do so because of what it did before.
        """
        alone = len(self.part) == 1 and len(self._left) == 1
        return alone and (self.fresh or self.verdict is not Verdict.CRASHED)

    def result(self, answer: Answer) -> Result | None:
        """The result that an answer is, if it is waited for; which it is once."""
        if len(answer) != 3 or answer[1] not in _VERDICTS or self._left.pop(answer[0], None) is None:
            return None
        return Result(answer[0], _VERDICTS[answer[1]], answer[2])

    def ends_with(self, answer: Answer) -> bool:
        """Note what an answer means for the whole."""
        match answer:
            case [Word.ERROR, str(message), str(hint)]:
                self.error = CatalogueError(message, hint)
                return True
            case [Word.RAISED, str(text)]:
                self.end(Verdict.FAILED, text)
                return True
            case [Word.DONE, *_]:
                return True
        return False

    def end(self, verdict: Verdict, reason: str) -> None:
        """Note how it ended for what has no result."""
        self.verdict, self.reason = verdict, reason

    def parts(self) -> list[tuple[Request, ...]]:
        """What is to be run again, and how."""
        left = self.left
        if self.verdict is Verdict.CRASHED and len(left) > _MANY:
            middle = len(left) // 2
            return [left[:middle], left[middle:]]
        # A hang costs its time limit each time that it is met: so it is met once more at most.
        return [(request,) for request in left]


class _Suspicion:
    """Who is to blame for failures: the files, or the catalogue, which fails over one after the other.

    A file is not blamed before it is known whether the next one fares better. One that has been blamed, or
    that the catalogue failed over before it was seen to be well, speaks no more against the catalogue: else
    such files would keep all others waiting.
    """

    def __init__(self) -> None:
        self._in_a_row: set[int] = set()
        self._withheld: list[Result] = []
        self._guilty: set[int] = set()

    def begin(self, guilty: Iterable[int]) -> None:
        """Nobody waits any more for results that were kept."""
        self._withheld.clear()
        self._guilty.update(guilty)

    def hear(self, result: Result) -> Iterator[Result]:
        """The results that can be told now."""
        if result.verdict in _DOUBTFUL and result.id not in self._guilty:
            self._in_a_row.add(result.id)
            self._withheld.append(result)
            return
        if result.verdict in _PROOF:
            self._guilty |= self._in_a_row
            self._in_a_row.clear()
            yield from self.blame()
        yield result

    def weigh(self, *, has_more: bool) -> None:
        """Blame the catalogue if that is due; `has_more`: whether another file can be tried before.

        Raises
        ------
        CatalogueError
            The files whose results were kept get none, and none is held to be guilty any more.
        """
        count, kept = len(self._in_a_row), len(self._withheld)
        if count < _ROW or not kept:
            return
        last = self._withheld[-1]
        if has_more and kept < (_HANGS if last.verdict is Verdict.TIMED_OUT else _ENOUGH):
            return
        self._withheld.clear()
        self._guilty.clear()
        raise CatalogueError(
            f"the catalogue fails over every file, {count} in a row: {last.reason or last.verdict}",
            "mend what the reason says, here or in the log; one file is tried now and then",
        )

    def blame(self) -> Iterator[Result]:
        """The results that were kept, if any."""
        kept, self._withheld = self._withheld, []
        self._guilty.update(result.id for result in kept)
        yield from kept
