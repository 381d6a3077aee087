"""A catalogue that accepts everything and keeps nothing."""

from collections.abc import Iterator, Mapping, Sequence

from endpoint.catalogues.contract import Request, Result, Verdict


class NullCatalogue:
    """Says of each file that it is ingested."""

    def __init__(self, config: Mapping[str, object]) -> None:
        for key in config:
            raise ValueError(f"{key}: the null catalogue has nothing to configure")

    def open(self) -> None:
        """There is nothing to open."""

    def ingest(self, requests: Sequence[Request]) -> Iterator[Result]:
        return (Result(request.id, Verdict.INGESTED) for request in requests)

    def version(self) -> str:
        return "null"

    def close(self) -> None:
        """There is nothing to close."""
