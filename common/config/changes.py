"""What differs between two configurations, told so that no password gets into a log."""

import json
from collections.abc import Iterator

from pydantic import BaseModel

from common.config.document import Key, dotted


def changes(before: BaseModel, after: BaseModel, above: Key = ()) -> Iterator[str]:
    """A line for each key whose value differs: ``general.num_threads: 2 → 4``.

    Values are not shown of a key with ``repr=False``, nor of keys that the model does not know.
    """
    fields = type(before).model_fields
    for name, info in fields.items():
        key = (*above, info.alias or name)
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, BaseModel) and type(old) is type(new):
            yield from changes(old, new, key)
        elif old != new:
            yield (
                f"{dotted(key)}: {_shown(old)} → {_shown(new)}" if info.repr else f"{dotted(key)}: is another"
            )
    old_own, new_own = before.model_extra or {}, after.model_extra or {}
    for own in sorted(old_own.keys() | new_own.keys()):
        if old_own.get(own) != new_own.get(own):
            yield f"{dotted((*above, own))}: is another"


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    return value.model_dump(by_alias=True) if isinstance(value, BaseModel) else str(value)
