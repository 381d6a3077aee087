"""The command `oods.py`, with the options that the OODS had."""

import argparse
from pathlib import Path
from typing import NoReturn

_EXAMPLE = Path(__file__).parent / "etc" / "oods.yaml"
_LEVELS = {"DEBUG": "DEBUG", "INFO": "INFO", "WARN": "WARNING", "ERROR": "ERROR", "FATAL": "CRITICAL"}
"""The OODS's words for levels, and Python's."""


def main() -> NoReturn:
    options = _parser().parse_args()
    from common.app import run
    from endpoint.cli import kind

    verb = "validate" if options.validate else "start"
    run(kind(level=_LEVELS[options.loglevel]), [verb, "--", str(options.config)], name="oods.py")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="oods.py",
        description="Ingest new files into a Butler, and remove old ones: endmgr, by its old name.",
        epilog="`endmgr` takes the same configuration, and has status, check, history and more.",
    )
    parser.add_argument(
        "config",
        nargs="?",
        type=Path,
        default=_EXAMPLE,
        help=f"use this configuration, of the OODS or of endmgr (default: the example, {_EXAMPLE})",
    )
    parser.add_argument(
        "-y", "--yaml-validate", action="store_true", dest="validate", help="only validate the configuration"
    )
    parser.add_argument(
        "-l",
        "--loglevel",
        choices=_LEVELS,
        default="WARN",
        type=str.upper,
        help="print messages from this level on",
    )
    return parser


if __name__ == "__main__":
    main()
