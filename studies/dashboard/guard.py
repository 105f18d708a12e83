"""What stands between browsers and optuna-dashboard, which itself lets any web page change or delete a study."""

from __future__ import annotations

import ipaddress
import re
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from http import HTTPStatus
from wsgiref.types import StartResponse, WSGIEnvironment

from studies.dashboard.response import Answer, asked_path, refusal
from studies.dashboard.server import Address

_METHODS = ("GET", "HEAD")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.%]+\]|[^\s:/@\[\]]+?)\.?(:\d+)?", re.IGNORECASE)

# What a page of this origin may be made of is said by optuna-dashboard; this is what it leaves open.
_PAGE_POLICY = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
# All else is data, and must not come to life when it is opened by itself.
_DATA_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
# What optuna-dashboard itself answers with; all else comes from those who write into the study.
_OWN = ("/dashboard", "/static/", "/api/", "/csv/", "/favicon.ico")
_HARMLESS_TYPES = {"image/png": "image/png", "application/json": "application/json"} | dict.fromkeys(
    ("text/plain", "text/yaml", "text/x-yaml", "application/yaml", "application/x-yaml"), "text/plain; charset=utf-8"
)


class ReadOnlyGuard:
    """A web application that lets only reading through to what it guards, and only from pages of its own.

    A page that somebody has open elsewhere can make the browser send requests here. It may not change anything, since
    only GET and HEAD pass; and it cannot read anything by giving this machine a name of its own (DNS rebinding),
    since only known names are answered to.
    """

    def __init__(
        self,
        answer: Callable[[WSGIEnvironment], Answer],
        address: Address,
        *,
        tell: Callable[[str], None],
        debug: bool = False,
    ) -> None:
        """Guard something that answers requests.

        Args:
            answer: Answers a request.
            address: Where it is served.
            tell: Takes a line about a request that went wrong.
            debug: Tell about every request, and errors with their traceback.
        """
        self._answer = answer
        self._names = address.names()
        self._is_private = address.is_private
        self._tell = tell
        self._debug = debug

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        # What is asked for decides; applications may change the path on their way.
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        # Asked as GET, HEAD has the same headers, whoever makes up the answer.
        answer = self._refusal(environ) or self._shown({**environ, "REQUEST_METHOD": "GET"}, path)
        answer = _secured(answer, path)
        if self._debug:
            # Escaped: a path can hold what would change a terminal.
            self._tell(f"{method} {path!a} {answer.code}")
        start_response(answer.status, list(answer.headers))
        return [b"" if method == "HEAD" else answer.body]

    def _refusal(self, environ: WSGIEnvironment) -> Answer | None:
        if not self._knows(environ.get("HTTP_HOST", "")):
            reason = "this dashboard does not go by that name; use the address that it printed"
            return refusal(HTTPStatus.FORBIDDEN, reason)
        if environ["REQUEST_METHOD"] not in _METHODS:
            answer = refusal(HTTPStatus.METHOD_NOT_ALLOWED, "this dashboard is read-only")
            return answer.having(Allow=", ".join(_METHODS))
        try:
            asked_path(environ)
        except UnicodeError:
            # optuna-dashboard would leave such bytes out, and show something else than was looked at here.
            return refusal(HTTPStatus.BAD_REQUEST, "the address is not UTF-8")
        return None

    def _knows(self, host: str) -> bool:
        """Return whether a Host header is a name of this dashboard; any port will do, since tunnels change it."""
        match = _HOST.fullmatch(host)
        name = match["name"].strip("[]").casefold() if match else ""
        # Served to other machines, it has addresses that this one does not know of, and an address is nobody's name.
        return name in self._names or (not self._is_private and _is_ip(name))

    def _shown(self, environ: WSGIEnvironment, path: str) -> Answer:
        try:
            answer = self._answer(environ)
        except Exception as error:
            text = "".join(traceback.format_exception(error)).rstrip() if self._debug else type(error).__name__
            self._tell(f"{path!a} cannot be shown: {text}")
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "this cannot be shown")
        return answer if path.startswith(_OWN) else _only_harmless(answer)


def _only_harmless(answer: Answer) -> Answer:
    """Let through what a browser only shows: pictures, JSON and text; never HTML or SVG, which can act."""
    if answer.code != HTTPStatus.OK:
        return answer
    shown_as = _HARMLESS_TYPES.get(answer.content_type)
    if shown_as is None:
        return refusal(HTTPStatus.FORBIDDEN, "only PNG, JSON and plain text are shown here")
    return answer.having(Content_Type=shown_as)


def _secured(answer: Answer, path: str) -> Answer:
    answer = answer.lacking("Access-Control-Allow-Origin")
    if not path.startswith("/static/"):
        # What is shown changes while a study runs.
        answer = answer.having(Cache_Control="no-cache")
    is_page = path.startswith("/dashboard") and answer.code < HTTPStatus.BAD_REQUEST
    # A second policy narrows the first.
    policy = ("Content-Security-Policy", _PAGE_POLICY if is_page else _DATA_POLICY)
    return replace(answer, headers=(*answer.headers, policy, *_HEADERS))


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
