"""Replacing functions of the program in this process, by their dotted names."""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Callable
from typing import Any

from harness.run import HarnessError

Callback = Callable[..., object]


def replace(target: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function by the one that `make` returns.

    Args:
        target: Dotted name of the function, where its caller looks it up.
        make: Receives the function and returns its replacement.

    Raises:
        HarnessError: The function does not exist.
    """
    owner_name, _, name = target.rpartition(".")
    try:
        owner = pkgutil.resolve_name(owner_name)
        function = getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise HarnessError(f"the program has no function {target} to replace: {error}") from error
    replacement = make(function)

    @functools.wraps(function)
    def replaced(*arguments: Any, **named: Any) -> Any:
        return replacement(*arguments, **named)

    # Only a function binds as a method; a `staticmethod` must stay one.
    static = isinstance(owner, type) and isinstance(owner.__dict__.get(name), staticmethod)
    setattr(owner, name, staticmethod(replaced) if static else replaced)


def watch(target: str, *, before: Callback = lambda *_, **__: None, after: Callback = lambda *_, **__: None) -> None:
    """Pass the arguments of each call of a function to `before`, and to `after` once it has returned."""

    def watched(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        before(*arguments, **named)
        result = function(*arguments, **named)
        after(*arguments, **named)
        return result

    replace(target, lambda function: functools.partial(watched, function))
