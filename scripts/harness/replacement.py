"""Functions that replace or watch functions of the program in this process, given their dotted names."""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Callable
from typing import Any

from harness.run import HarnessError

Callback = Callable[..., object]


def replace(target: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function with the one that `make` returns.

    Args:
        target: Dotted name of the function, where its caller looks it up.
        make: Called with the function; returns the replacement.

    Raises:
        HarnessError: The function does not exist.
    """
    owner_name, _, name = target.rpartition(".")
    try:
        owner = pkgutil.resolve_name(owner_name)
        function = getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise HarnessError(f"the program has no function {target} to replace: {error}; update the name") from error
    replacement = make(function)

    @functools.wraps(function)
    def replaced(*arguments: Any, **named: Any) -> Any:
        return replacement(*arguments, **named)

    # Only a function binds as a method; a `staticmethod` must stay one.
    static = isinstance(owner, type) and isinstance(owner.__dict__.get(name), staticmethod)
    setattr(owner, name, staticmethod(replaced) if static else replaced)


def watch(target: str, *, before: Callback = lambda *_, **__: None, after: Callback = lambda *_, **__: None) -> None:
    """Make each call of a function also call `before` and, once the function has returned, `after`.

    Both are called with the arguments of the function; `after` is not called if the function raises an exception.
    """

    def watched(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        before(*arguments, **named)
        result = function(*arguments, **named)
        after(*arguments, **named)
        return result

    replace(target, lambda function: functools.partial(watched, function))
