"""The command `hdfmgr`.

Nothing is imported with the module: what cron calls every minute has mostly nothing to do.
"""


def main() -> None:
    import gc
    import sys

    # Looking for garbage in what is just being imported takes a tenth of a start's time.
    gc.set_threshold(50_000)

    from common.cron import has_nothing_to_do

    if not has_nothing_to_do(sys.argv[1:]):
        from handoff.cli import main

        main()


if __name__ == "__main__":
    main()
