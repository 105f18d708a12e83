"""Numbers, names, settings and their differences as text for messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def counted(number: int, thing: str, things: str = "") -> str:
    """Format a number with its noun: ``1 trial``, ``2 trials``, ``1,000 processes``."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def listed(names: Sequence[str], limit: int) -> str:
    """Join the first `limit` names and append the number of further names: ``a, b and 3 more``."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more:,} more" if more > 0 else "")


def changes(old: Mapping[str, object], new: Mapping[str, object], label: str = "") -> list[str]:
    """Return a text for each difference, such as ``width was 64 and is 96 now``.

    Args:
        old: The old values, keyed by name; determines the order of the texts.
        new: The new values, keyed by name; names missing in `old` come last.
        label: Prefix of each name.
    """
    texts = []
    for name, value in old.items():
        if name not in new:
            texts.append(f"{label}{name} was removed")
        elif value != new[name]:
            texts.append(f"{label}{name} was {as_written(value)} and is {as_written(new[name])} now")
    return texts + [f"{label}{name} was added" for name in new if name not in old]


def as_written(value: object) -> str:
    """Format a value in one line, as in a YAML file: ``{low: 0.1, log: true}``, ``[small, medium]``."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {as_written(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_written, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def short_text(value: object, digits: int = 4) -> str:
    """Format a value like `as_written`, but a float with at most `digits` significant digits."""
    return f"{value:.{digits}g}" if isinstance(value, float) else as_written(value)
