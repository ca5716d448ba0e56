"""What is different between two contents, by path. Pure; it knows the shape of no kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from accord.http.problems import pointer

CHANGES_MAX = 5_000
_Path = tuple[str | int, ...]


class Change(Struct, frozen=True):
    """One difference. `path` is a JSON Pointer in which an element that has a `key` is named by that key."""

    path: str
    change: Literal["added", "removed", "changed"]
    old: object = None
    new: object = None


def diff(old: Mapping[str, object], new: Mapping[str, object]) -> list[Change]:
    """The differences in the order of the paths in the old content, then what was added; 5,000 at most.

    Lists whose elements are mappings with a distinct text `key` are compared by it, and a different order of the kept
    elements is a change of the list (its keys in order); other lists are compared by place.
    """
    found = []
    for change in _diff_values((), old, new):
        found.append(change)
        if len(found) >= CHANGES_MAX:
            break
    return found


def _diff_values(path: _Path, old: object, new: object) -> Iterator[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _diff_mappings(path, old, new)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _diff_lists(path, old, new)
    elif type(old) is not type(new) or old != new:
        yield Change(pointer(path), "changed", old, new)


def _diff_mappings(path: _Path, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Change]:
    for name, value in old.items():
        if name in new:
            yield from _diff_values((*path, name), value, new[name])
        else:
            yield Change(pointer((*path, name)), "removed", old=value)
    for name, value in new.items():
        if name not in old:
            yield Change(pointer((*path, name)), "added", new=value)


def _diff_lists(path: _Path, old: Sequence[object], new: Sequence[object]) -> Iterator[Change]:
    old_keyed, new_keyed = _index_by_key(old), _index_by_key(new)
    if old_keyed is not None and new_keyed is not None:
        yield from _diff_mappings(path, old_keyed, new_keyed)
        kept_old = [key for key in old_keyed if key in new_keyed]
        kept_new = [key for key in new_keyed if key in old_keyed]
        if kept_old != kept_new:
            yield Change(pointer(path), "changed", list(old_keyed), list(new_keyed))
        return
    for index in range(max(len(old), len(new))):
        if index >= len(new):
            yield Change(pointer((*path, index)), "removed", old=old[index])
        elif index >= len(old):
            yield Change(pointer((*path, index)), "added", new=new[index])
        else:
            yield from _diff_values((*path, index), old[index], new[index])


def _index_by_key(items: Sequence[object]) -> dict[str, object] | None:
    """The elements by their `key`, None if they have none or not distinct ones. An empty list has them trivially."""
    keyed: dict[str, object] = {}
    for item in items:
        key = item.get("key") if isinstance(item, Mapping) else None
        if not isinstance(key, str) or key in keyed:
            return None
        keyed[key] = item
    return keyed
