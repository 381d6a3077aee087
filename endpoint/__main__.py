"""The command `endmgr`.

Nothing is imported with the module: the manager's worker processes import it again.
"""


def main() -> None:
    from endpoint.cli import main

    main()


if __name__ == "__main__":
    main()
