"""A response to a browser, whole, so that another one can still be given in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Self
from wsgiref.types import WSGIApplication, WSGIEnvironment


@dataclass(frozen=True)
class Answer:
    """A response, all of it: the largest are a few megabytes.

    Attributes:
        status: Code and reason.
        headers: Names and values; a name may come twice.
        body: The content, empty for HEAD.
    """

    status: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    @property
    def code(self) -> int:
        """The number in the status."""
        return int(self.status.partition(" ")[0])

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty if none is given."""
        values = [value for name, value in self.headers if name.casefold() == "content-type"]
        return values[0].partition(";")[0].strip().casefold() if values else ""

    def having(self, **headers: str) -> Self:
        """Return the answer with headers in the place of those of the same name; ``_`` stands for ``-``."""
        new = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self.lacking(*new), headers=(*self.lacking(*new).headers, *new.items()))

    def lacking(self, *names: str) -> Self:
        """Return the answer without the headers of some names."""
        gone = {name.casefold() for name in names}
        return replace(self, headers=tuple(pair for pair in self.headers if pair[0].casefold() not in gone))


def refusal(status: HTTPStatus, reason: str) -> Answer:
    """Return an answer whose reason optuna-dashboard's page shows to its user."""
    body = json.dumps({"reason": reason}, ensure_ascii=False).encode()
    headers = (("Content-Type", "application/json; charset=utf-8"), ("Content-Length", str(len(body))))
    return Answer(f"{status.value} {status.phrase}", headers, body)


def asked_path(environ: WSGIEnvironment) -> str:
    """Return the path of a request as applications read it, not byte by byte as it comes.

    Raises:
        UnicodeError: It is no UTF-8.
    """
    path: str = environ["PATH_INFO"]
    return path.encode("latin-1").decode("utf-8")


def ask(app: WSGIApplication, environ: WSGIEnvironment) -> Answer:
    """Return what an application answers to a request.

    Raises:
        Exception: Whatever the application raises.
    """
    head: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], *error: object) -> Callable[[bytes], object]:
        head[:] = [status, tuple(headers)]
        return lambda data: None

    parts = app(environ, start_response)
    try:
        body = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    return Answer(head[0], head[1], body)
