"""The guard between browsers and optuna-dashboard, which on its own lets any web page change or delete a study."""

from __future__ import annotations

import ipaddress
import json
import re
import traceback
from collections.abc import Callable, Iterable
from http import HTTPStatus
from wsgiref.types import StartResponse, WSGIEnvironment

from werkzeug.wrappers import Response

from studies.dashboard.server import Address

_METHODS = ("GET", "HEAD")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.%]+\]|[^\s:/@\[\]]+?)\.?(:\d+)?", re.IGNORECASE)

# optuna-dashboard's own policy says what a page may load; this restricts what that policy leaves open.
_PAGE_POLICY = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
# Everything else is data, and must not run anything when it is opened by itself.
_DATA_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Responses of optuna-dashboard itself; the content of all other paths comes from those who write into the study.
_OWN = ("/dashboard", "/static/", "/api/", "/csv/", "/favicon.ico")
_HARMLESS_TYPES = {"image/png": "image/png", "application/json": "application/json"} | dict.fromkeys(
    ("text/plain", "text/yaml", "text/x-yaml", "application/yaml", "application/x-yaml"), "text/plain; charset=utf-8"
)
_UNSHOWN = "this cannot be shown; the study may be damaged; run `khmer-tuner status`, which names the damage"


class ReadOnlyGuard:
    """A web application that lets only read requests through to another one, and only for its own pages.

    A page from elsewhere can make the browser send requests here. Such a page cannot change anything, since only GET
    and HEAD pass; and it cannot read anything by giving this machine a name of its own (DNS rebinding), since a request
    with an unknown Host is refused.
    """

    def __init__(
        self,
        answer: Callable[[WSGIEnvironment], Response],
        address: Address,
        *,
        tell: Callable[[str], None],
        debug: bool = False,
    ) -> None:
        """Guard an application.

        Args:
            answer: Returns the application's response to a request.
            address: Where the application is served.
            tell: Receives a line about each request that failed.
            debug: Also report every request, and errors with their traceback.
        """
        self._answer = answer
        self._names = address.names()
        self._is_private = address.is_private
        self._tell = tell
        self._debug = debug

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to a request."""
        # As it was requested; applications may change the path on their way.
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        # The application is asked with GET, so that HEAD has the same headers.
        response = self._refusal(environ) or self._shown({**environ, "REQUEST_METHOD": "GET"}, path)
        _secure(response, path)
        if self._debug:
            # Escaped: a path can contain control characters of a terminal.
            self._tell(f"{method} {path!a} {response.status_code}")
        return response(environ, start_response)

    def _refusal(self, environ: WSGIEnvironment) -> Response | None:
        if not self._knows(environ.get("HTTP_HOST", "")):
            reason = "this dashboard does not go by that name; use the address that it printed"
            return refusal(HTTPStatus.FORBIDDEN, reason)
        if environ["REQUEST_METHOD"] not in _METHODS:
            response = refusal(HTTPStatus.METHOD_NOT_ALLOWED, "this dashboard is read-only")
            response.headers["Allow"] = ", ".join(_METHODS)
            return response
        try:
            requested_path(environ)
        except UnicodeError:
            # optuna-dashboard would drop such bytes, and show another path than the one checked here.
            return refusal(HTTPStatus.BAD_REQUEST, "the address is not UTF-8")
        return None

    def _knows(self, host: str) -> bool:
        """Return whether a Host header is a name of this dashboard; any port will do, since tunnels change it."""
        match = _HOST.fullmatch(host)
        name = match["name"].strip("[]").casefold() if match else ""
        # Served to other machines, it may have addresses that are unknown here, and no page can rebind an address.
        return name in self._names or (not self._is_private and _is_ip(name))

    def _shown(self, environ: WSGIEnvironment, path: str) -> Response:
        try:
            response = self._answer(environ)
        except Exception as error:
            text = "".join(traceback.format_exception(error)).rstrip() if self._debug else type(error).__name__
            self._tell(f"{path!a} cannot be shown: {text}")
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, _UNSHOWN)
        if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:  # of optuna-dashboard
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, _UNSHOWN)
        return response if path.startswith(_OWN) else _only_harmless(response)


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


def _only_harmless(response: Response) -> Response:
    """Let through what a browser only displays: PNG, JSON and text; never HTML or SVG, which can run scripts."""
    if response.status_code != HTTPStatus.OK:
        return response
    shown_as = _HARMLESS_TYPES.get((response.mimetype or "").casefold())
    if shown_as is None:
        return refusal(HTTPStatus.FORBIDDEN, "only PNG, JSON and plain text are shown here")
    response.headers["Content-Type"] = shown_as
    return response


def _secure(response: Response, path: str) -> None:
    """Set the headers that restrict what a browser does with a response."""
    response.headers.remove("Access-Control-Allow-Origin")
    if not path.startswith("/static/"):
        response.headers["Cache-Control"] = "no-cache"  # the study changes while it runs
    is_page = path.startswith("/dashboard") and response.status_code < HTTPStatus.BAD_REQUEST
    # A second policy only narrows the first.
    response.headers.add("Content-Security-Policy", _PAGE_POLICY if is_page else _DATA_POLICY)
    response.headers.update(_HEADERS)


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
