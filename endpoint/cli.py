"""The commands of the endpoint manager. It can't do any of them yet, and each says so."""

from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from common.app import frame, run
from common.errors import DbbError

_PROGRAM = "endmgr"
_VERBS = ("start", "stop", "status", "retry", "history", "check", "validate", "run", "initdb", "backfill")

Words = Annotated[list[str] | None, typer.Argument(metavar="[ARGUMENT]...")]


def main() -> NoReturn:
    run(_PROGRAM, application())


def application() -> typer.Typer:
    """Every verb that there will be."""
    app = frame(_PROGRAM, "Verify, store and catalogue what arrived at the endpoint site. (Not there yet.)")
    for verb in _VERBS:
        app.command(
            verb,
            help="Not there yet.",
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_refusal(verb))
    return app


def _refusal(verb: str) -> Callable[..., None]:
    def refuse(words: Words = None) -> None:
        raise DbbError(
            f"{verb}: the endpoint manager can't do this yet",
            "what hdfmgr delivers waits in the endpoint's buffer, whole and verified",
        )

    return refuse
