"""The guard in front of optuna-dashboard: without it, any website in the browser could change or delete a study."""

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

# optuna-dashboard's own policy restricts what a page loads; this one adds frames, base URLs and form targets.
_PAGE_POLICY = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
# All other responses are data, which must not run scripts if a browser opens them directly.
_DATA_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Paths that optuna-dashboard itself serves; all other paths serve files of the study's users.
_TRUSTED_PATHS = ("/dashboard", "/static/", "/api/", "/csv/", "/favicon.ico")
_HARMLESS_TYPES = {"image/png": "image/png", "application/json": "application/json"} | dict.fromkeys(
    ("text/plain", "text/yaml", "text/x-yaml", "application/yaml", "application/x-yaml"), "text/plain; charset=utf-8"
)
_NOT_SHOWN = "optuna-dashboard failed; the study may be damaged; run `khmer-tuner status`, which names the damage"


class ReadOnlyGuard:
    """A web application that forwards only read requests with a known Host header to another application.

    Other websites can make the browser send requests to this application. They cannot change anything, because only GET
    and HEAD requests are forwarded. They cannot read anything through DNS rebinding (a foreign domain that resolves to
    this machine), because requests with an unknown Host header are refused.
    """

    def __init__(
        self,
        answer: Callable[[WSGIEnvironment], Response],
        address: Address,
        *,
        log: Callable[[str], None],
        debug: bool = False,
    ) -> None:
        """Create the guard of an application.

        Args:
            answer: Returns the application's response to a request.
            address: The address at which the application is served.
            log: Receives one line per failed request.
            debug: Whether to log every request, and errors with their traceback.
        """
        self._answer = answer
        self._names = address.names()
        self._is_private = address.is_private
        self._log = log
        self._debug = debug

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to a request."""
        # Read first, because the application may change the path in `environ`.
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        # A HEAD request is forwarded as GET, so that both have the same response headers.
        response = self._refusal(environ) or self._forward({**environ, "REQUEST_METHOD": "GET"}, path)
        _secure(response, path)
        if self._debug:
            # Escaped, because a path can contain terminal control characters.
            self._log(f"{method} {path!a} {response.status_code}")
        return response(environ, start_response)

    def _refusal(self, environ: WSGIEnvironment) -> Response | None:
        if not self._is_own_host(environ.get("HTTP_HOST", "")):
            reason = "unknown host name in the address; open the URL that `khmer-tuner dashboard` printed"
            return refusal(HTTPStatus.FORBIDDEN, reason)
        if environ["REQUEST_METHOD"] not in _METHODS:
            response = refusal(HTTPStatus.METHOD_NOT_ALLOWED, "this dashboard is read-only")
            response.headers["Allow"] = ", ".join(_METHODS)
            return response
        try:
            requested_path(environ)
        except UnicodeError:
            # optuna-dashboard would drop the invalid bytes, and serve another path than the one checked here.
            return refusal(HTTPStatus.BAD_REQUEST, "the path in the address is not UTF-8; correct the address")
        return None

    def _is_own_host(self, host: str) -> bool:
        """Return whether a Host header names this dashboard, with any port, because SSH tunnels change the port."""
        match = _HOST.fullmatch(host)
        name = match["name"].strip("[]").casefold() if match else ""
        # A public dashboard may have IP addresses unknown here; all are safe, because DNS rebinding needs a host name.
        return name in self._names or (not self._is_private and _is_ip(name))

    def _forward(self, environ: WSGIEnvironment, path: str) -> Response:
        try:
            response = self._answer(environ)
        except Exception as error:
            text = "".join(traceback.format_exception(error)).rstrip() if self._debug else type(error).__name__
            self._log(f"{path!a} cannot be shown: {text}")
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, _NOT_SHOWN)
        if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:  # from optuna-dashboard
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, _NOT_SHOWN)
        return response if path.startswith(_TRUSTED_PATHS) else _only_harmless(response)


def refusal(status: HTTPStatus, reason: str) -> Response:
    """Return an error response with a reason, which optuna-dashboard's page shows to the user."""
    body = json.dumps({"reason": reason}, ensure_ascii=False)
    return Response(body, status, content_type="application/json; charset=utf-8")


def requested_path(environ: WSGIEnvironment) -> str:
    """Return the path of a request, decoded as UTF-8.

    Raises:
        UnicodeError: The path is not valid UTF-8.
    """
    path: str = environ["PATH_INFO"]
    return path.encode("latin-1").decode("utf-8")


def _only_harmless(response: Response) -> Response:
    """Return a PNG, JSON or text response; refuse all other types, because HTML and SVG can run scripts."""
    if response.status_code != HTTPStatus.OK:
        return response
    shown_as = _HARMLESS_TYPES.get((response.mimetype or "").casefold())
    if shown_as is None:
        return refusal(HTTPStatus.FORBIDDEN, "only PNG, JSON and plain text are shown; other files could run code")
    response.headers["Content-Type"] = shown_as
    return response


def _secure(response: Response, path: str) -> None:
    """Set the security headers of a response to a request for this path."""
    response.headers.remove("Access-Control-Allow-Origin")
    if not path.startswith("/static/"):
        response.headers["Cache-Control"] = "no-cache"  # the study changes while it runs
    is_page = path.startswith("/dashboard") and response.status_code < HTTPStatus.BAD_REQUEST
    # Added, not replaced, because a second policy can only restrict the first one further.
    response.headers.add("Content-Security-Policy", _PAGE_POLICY if is_page else _DATA_POLICY)
    response.headers.update(_HEADERS)


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
