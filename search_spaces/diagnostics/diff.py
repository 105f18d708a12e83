"""What changed between two sets of settings, in words."""

from __future__ import annotations

from collections.abc import Mapping


def changes(old: Mapping[str, object], new: Mapping[str, object], label: str = "") -> list[str]:
    """Return what differs, as ``width was 64 and is 96 now``: first the old names in their order, then new ones.

    Args:
        old: Values by name.
        new: Values by name.
        label: Stands before each name.
    """
    told = []
    for name, value in old.items():
        if name not in new:
            told.append(f"{label}{name} is gone")
        elif value != new[name]:
            told.append(f"{label}{name} was {as_written(value)} and is {as_written(new[name])} now")
    return told + [f"{label}{name} is new" for name in new if name not in old]


def as_written(value: object) -> str:
    """Return a value as people write it in a file: ``{low: 0.1, log: true}``, ``[small, medium]``."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {as_written(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_written, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def short_text(value: object, digits: int = 4) -> str:
    """Return a value `as_written`, but a float with at most `digits` significant digits."""
    return f"{value:.{digits}g}" if isinstance(value, float) else as_written(value)
