"""The command `hdfmgr`.

Nothing is imported with the module: the manager's worker processes import it again.
"""


def main() -> None:
    from handoff.cli import main

    main()


if __name__ == "__main__":
    main()
