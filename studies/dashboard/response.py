"""Responses of our own, and how a request's path is read."""

from __future__ import annotations

import json
from http import HTTPStatus
from wsgiref.types import WSGIEnvironment

from werkzeug.wrappers import Response


def refusal(status: HTTPStatus, reason: str) -> Response:
    """Return a response whose reason the page of optuna-dashboard shows to its user."""
    body = json.dumps({"reason": reason}, ensure_ascii=False)
    return Response(body, status, content_type="application/json; charset=utf-8")


def requested_path(environ: WSGIEnvironment) -> str:
    """Return the path of a request, decoded as applications read it.

    Raises:
        UnicodeError: The path is not UTF-8.
    """
    path: str = environ["PATH_INFO"]
    return path.encode("latin-1").decode("utf-8")
