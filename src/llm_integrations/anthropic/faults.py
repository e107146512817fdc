"""Where in a request the thing is that JSON cannot say.

In: a request as a value that could not be encoded, or was encoded with a null that nobody wrote.
Out: one line that names the field and the reason. Runs only when something is wrong. No I/O.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

__all__ = ["find_fault", "holds_nan"]

MAX_DEPTH: Final = 400  # msgspec gives up somewhat below Python's limit of recursion
MAX_PATH: Final = 80


def holds_nan(request: object) -> bool:
    """Whether a request that could be encoded holds a number that JSON does not have."""
    waiting = [request]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (str, msgspec.Raw)):
            continue  # most values, so first
        if isinstance(value, float):
            if not math.isfinite(value):
                return True
        elif isinstance(value, msgspec.Struct):
            waiting += [getattr(value, name) for name in value.__struct_fields__]
        elif isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, Mapping):
            waiting += value.values()
    return False


def find_fault(request: object, encode: Callable[[object], bytes]) -> str | None:
    """Return the path of the first value that JSON cannot say, and why; None where all is well.

    Args:
        request: Structs, mappings and sequences.
        encode: tries a value that is none of them.
    """
    waiting: list[tuple[object, str, int]] = [(request, "", 0)]
    while waiting:
        value, path, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return f"{path[:MAX_PATH]}...: is nested too deep"
        if isinstance(value, (Mapping, list, tuple, msgspec.Struct)):
            parts = [(part, f"{path}{step}".lstrip("."), depth + 1) for step, part in _parts(value)]
            waiting += reversed(parts)
        elif (fault := _leaf_fault(value, encode)) is not None:
            return f"{path}: {fault}"
    return None


def _parts(
    value: Mapping[object, object] | Sequence[object] | msgspec.Struct,
) -> Iterator[tuple[str, object]]:
    """Yield what a value is made of, each with its step in a path."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield f".{name}", part
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            part = getattr(value, name)
            if part is not msgspec.UNSET:
                yield f".{name}", part
    else:
        for at, part in enumerate(value):
            yield f"[{at}]", part


def _leaf_fault(value: object, encode: Callable[[object], bytes]) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no number of JSON"
    try:
        encode(value)
    except UnicodeEncodeError:
        return "the text holds half of a surrogate pair, which is no character"
    except (TypeError, ValueError, OverflowError, RecursionError):
        return f"a request cannot hold a {type(value).__name__}"
    return None
