"""A header that notes what is asked of it, so that what was worked out from it once can be used again.

Translators ask for some twenty cards of hundreds, and take long over the answers. The detectors of an
exposure have those cards in common.
"""

from collections.abc import Iterator, Mapping, MutableMapping

Answers = Mapping[str, object]
"""By keyword, what a header said; of a card that it does not have, that there is none."""

_ABSENT = object()


class Asked(MutableMapping[str, object]):
    """A header as a translator wants it; what is written into it stays there."""

    def __init__(self, header: Mapping[str, object]) -> None:
        self._original = header
        self._changed = dict(header)
        self._answers: dict[str, object] = {}

    @property
    def answers(self) -> Answers:
        """What it has said until now, as it was before anything was written into it."""
        return self._answers

    def __getitem__(self, keyword: str) -> object:
        self._answers.setdefault(keyword, self._original.get(keyword, _ABSENT))
        return self._changed[keyword]

    def __setitem__(self, keyword: str, value: object) -> None:
        self._changed[keyword] = value

    def __delitem__(self, keyword: str) -> None:
        del self._changed[keyword]

    def __iter__(self) -> Iterator[str]:
        self._answers.update(self._original)
        return iter(self._changed)

    def __len__(self) -> int:
        return len(self._changed)


def says_the_same(header: Mapping[str, object], answers: Answers) -> bool:
    """Whether a header gives these answers to all that was asked for them."""
    return all(header.get(keyword, _ABSENT) == answer for keyword, answer in answers.items())
