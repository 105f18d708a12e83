"""Other websites and other machines cannot change a study or read it through the dashboard."""

import http.client
import io
import json
import re
import socket
from urllib.parse import urlsplit
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from werkzeug.wrappers import Response

from studies.dashboard.guard import ReadOnlyGuard
from studies.dashboard.server import Address

NO_STUDY = "this dashboard shows no such study; open the URL that `khmer-tuner dashboard` printed"
# A valid value for each parameter of a path.
PARAMETERS = {"study_id": "1", "trial_id": "1", "artifact_id": "0a-1", "history_id": "a", "plot_type": "slice"}
BODIES = {
    "study_name": "intruder",
    "directions": ["minimize"],
    "body": "changed",
    "version": 1,
    "state": "Complete",
    "values": [1.0],
    "user_attrs": {"changed": 1},
    "file": "data:text/html;base64,PGI+",
    "filename": "x.html",
    "mode": "ChooseWorst",
    "candidates": [0],
    "clicked": 0,
    "output_type": "note",
}


def routes():
    """Yield method and path of every route of optuna-dashboard."""
    for route in optuna_dashboard._app.create_app(optuna.storages.InMemoryStorage()).routes:
        path = re.sub(r"<(\w+):?[^>]*>", lambda match: PARAMETERS.get(match[1], "bundle.js"), route.rule)
        yield route.method, re.sub(r"<:re:.*>$", "", path)


WRITES = [(method, path) for method, path in routes() if method != "GET"]
READS = [path for method, path in routes() if method == "GET"]


def contents(folder):
    """Return modification time and content of every file below a folder."""
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_optuna_dashboard_alone_accepts_writes():
    assert len(WRITES) > 15
    assert {"POST", "PUT", "DELETE"} <= {method for method, _ in WRITES}
    assert ("DELETE", "/api/studies/1") in WRITES
    app = optuna_dashboard.wsgi(storage := optuna.storages.InMemoryStorage())
    response = Response.from_app(app, request("POST", "/api/studies", body=BODIES), buffered=True)
    assert (response.status_code, len(storage.get_all_studies())) == (201, 1)


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE", "BREW"])
def test_methods_other_than_get_and_head_are_refused(served, method):
    before = contents(served.folder)
    for path in READS:
        reply = served.request(path, method, json.dumps(BODIES).encode(), Content_Type="application/json")
        assert (reply.code, reply.header("Allow")) == (405, "GET, HEAD"), path
    assert contents(served.folder) == before


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_every_write_route_is_refused(served, method, path):
    before = contents(served.folder)
    reply = served.request(path, method, json.dumps(BODIES).encode(), Content_Type="application/json")
    assert (reply.code, reply.header("Allow")) == (405, "GET, HEAD")
    assert reply.reason == "this dashboard is read-only"
    assert contents(served.folder) == before


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_override_header_does_not_change_the_method(served, name):
    before = contents(served.folder)
    assert served.request("/api/studies/1?after=0", **{name: "DELETE"}).code == 200
    assert contents(served.folder) == before


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_read_requests_change_no_file(served, method, path):
    before = contents(served.folder)
    reply = served.request(path, method)
    assert reply.code in (200, 302, 404)
    assert reply.body == b"" or method == "GET"
    assert contents(served.folder) == before


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example.localhost",
        "127.0.0.1@evil.example",
        "127.0.0.1 evil.example",
        "127.0.0.1,evil.example",
        "127.0.0.1:80:80",
        "10.0.0.1",
        "0.0.0.0",
        "[::1].evil.example",
        "[::2]",
        "ខ្មែរ",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/api/studies/1", "/dashboard", "/static/bundle.js", "/csv/1"])
def test_unknown_host_is_refused(served, host, path):
    reply = served.request(path, Host=host.encode().decode("latin-1"))
    assert reply.code == 403
    assert reply.reason.startswith("unknown host name in the address; open the URL that ")


def test_two_host_headers_are_refused(served):
    url = urlsplit(served.url)
    with socket.create_connection((str(url.hostname), url.port or 0), timeout=60) as connection:
        connection.sendall(b"GET /api/studies/1 HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "LocalHost", "localhost.:8080", "[::1]", "[::1]:8080"])
def test_own_host_names_are_accepted_with_any_port(served, host):
    assert served.request("/api/studies", Host=host).code == 200


@pytest.mark.parametrize(
    ("name", "shown_as"),
    [
        ("learning_curves.png", "image/png"),
        ("training_config.yaml", "text/plain; charset=utf-8"),
        ("figures.json", "application/json"),
    ],
)
def test_harmless_artifacts_are_shown(served, full_study, name, shown_as):
    reply = served.request(full_study.artifacts[name])
    assert (reply.code, reply.header("Content-Type")) == (200, shown_as)
    assert reply.body == (full_study.folder / name).read_bytes()


@pytest.mark.parametrize("name", ["page.html", "drawing.svg", "page.xhtml", "sly.html", "unknown"])
def test_artifacts_that_could_run_scripts_are_refused(served, full_study, name):
    reply = served.request(full_study.artifacts[name])
    assert (reply.code, reply.reason) == (
        403,
        "only PNG, JSON and plain text are shown; other files could run code",
    )
    assert b"script" not in reply.body


@pytest.mark.parametrize("name", ["page.html", "learning_curves.png"])
@pytest.mark.parametrize("hidden", ["/art%FFifacts/", "/%80artifacts/", "/artifacts%C3/"])
def test_path_with_invalid_utf8_is_refused(served, full_study, name, hidden):
    reply = served.request(full_study.artifacts[name].replace("/artifacts/", hidden))
    assert (reply.code, reply.reason) == (400, "the path in the address is not UTF-8; correct the address")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/artifacts/1/1/0a", 403),
        ("/anything", 403),
        ("/", 403),
        ("//artifacts/1/1/0a", 403),
        ("/apiary", 403),
        ("/dashboard/studies/1", 200),
        ("/static/bundle.js", 200),
        ("/api/studies", 200),
        ("/csv/1", 200),
        ("/favicon.ico", 200),
    ],
)
def test_html_is_served_only_from_paths_of_optuna_dashboard(path, code):
    page = Response(b"<script>alert(1)</script>", content_type="text/html")
    guard = ReadOnlyGuard(lambda environ: page, Address.of("127.0.0.1"), log=print)
    assert Response.from_app(guard, request("GET", path)).status_code == code


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/api/studies", "evil.example"),
        ("/%FF", "localhost"),
        ("/api/studies/9", "localhost"),
        ("page.html", "localhost"),
        ("/api/studies", "localhost"),
        ("/dashboard", "localhost"),
    ],
)
def test_head_response_is_the_get_response_without_body_and_keeps_the_connection(served, full_study, path, host):
    url = urlsplit(served.url)
    path = full_study.artifacts.get(path, path)
    first, second = (f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n" for method in ("HEAD", "GET"))
    with socket.create_connection((str(url.hostname), url.port or 0), timeout=60) as connection:
        connection.sendall(f"{first}\r\n{second}Connection: close\r\n\r\n".encode())
        replies = connection.makefile("rb").read()
    head, get, body = replies.split(b"\r\n\r\n", 2)
    assert get.startswith(b"HTTP/1.1 ")
    assert head.splitlines()[0] == get.splitlines()[0]
    assert f"Content-Length: {len(body)}".encode() in head.splitlines()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/artifacts/1/99/0a", "this study has no such trial; choose one from the list of trials"),
        ("/artifacts/9/1/0a", NO_STUDY),
        ("/api/studies/9", NO_STUDY),
        ("/api/studies/-1", NO_STUDY),
        (f"/api/studies/{'9' * 30}", NO_STUDY),
        (f"/api/studies/{'9' * 5000}", NO_STUDY),
        ("/csv/9", NO_STUDY),
        ("gone.png", "the file of this artifact no longer exists; reload the page"),
    ],
    ids=lambda text: text[:30],
)
def test_missing_study_trial_or_artifact_is_a_404_with_a_reason(served, full_study, path, reason):
    reply = served.request(full_study.artifacts.get(path, path))
    assert (reply.code, reply.reason) == (404, reason)


@pytest.mark.parametrize("root", ["/artifacts/1/", "/artifacts/1/1/", "/static/", "/dashboard/", "/api/", "/"])
@pytest.mark.parametrize("up", ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "....//"])
@pytest.mark.parametrize("target", ["study.db", "_app.py", "etc/passwd"])
def test_path_traversal_is_refused(served, root, up, target):
    for depth in (1, 2, 12):
        reply = served.request(root + up * depth + target)
        assert reply.code in (302, 403, 404) or (root == "/dashboard/" and b"<title>Optuna" in reply.body)
        assert not re.search(rb"SQLite format|def create_app|root:", reply.body)


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("/dashboard/studies/1", "frame-ancestors 'none'"),
        ("/api/studies/1", "default-src 'none'; sandbox"),
        ("learning_curves.png", "default-src 'none'; sandbox"),
        ("training_config.yaml", "default-src 'none'; sandbox"),
        ("/csv/1", "default-src 'none'; sandbox"),
        ("/nothing", "default-src 'none'; sandbox"),
    ],
)
def test_responses_have_security_headers(served, full_study, path, policy):
    reply = served.request(full_study.artifacts.get(path, path), Origin="http://evil.example")
    assert policy in reply.header("Content-Security-Policy")
    assert reply.header("X-Content-Type-Options") == "nosniff"
    assert reply.header("X-Frame-Options") == "DENY"
    assert reply.header("Referrer-Policy") == "no-referrer"
    assert reply.header("Cross-Origin-Resource-Policy") == "same-origin"
    assert reply.header("Cache-Control") == "no-cache"
    assert not [name for name, _ in reply.headers if name.casefold().startswith(("access-control-", "server"))]


def test_page_may_load_only_from_the_dashboard(served):
    policy = served.request("/dashboard").header("Content-Security-Policy")
    assert "default-src 'self'" in policy
    assert "connect-src 'self'" in policy
    assert "http" not in policy


def request(method, path, *, host="127.0.0.1", body=None):
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_HOST": host}
    content = json.dumps(body).encode()
    environ |= {"wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content))}
    environ |= {"CONTENT_TYPE": "application/json", "HTTP_ACCEPT_ENCODING": "identity"}
    setup_testing_defaults(environ)
    return environ


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("192.168.1.7:8080", 200),
        ("[2001:db8::1]", 200),
        (f"{socket.gethostname()}:8080", 200),
        ("localhost", 200),
        ("evil.example", 403),
        (f"{socket.gethostname()}.evil.example", 403),
    ],
)
def test_public_dashboard_accepts_ip_addresses_and_the_machines_name(host, code):
    guard = ReadOnlyGuard(lambda environ: Response(), Address.of("0.0.0.0"), log=print)
    assert Response.from_app(guard, request("GET", "/dashboard", host=host)).status_code == code


@pytest.mark.parametrize("debug", [False, True])
def test_failed_request_is_logged_with_its_path_escaped(debug, capsys):
    def fail(environ):
        raise RuntimeError("broken")

    lines = []
    guard = ReadOnlyGuard(fail, Address.of("127.0.0.1"), log=lines.append, debug=debug)
    response = Response.from_app(guard, request("GET", "/api/\x1b[2J\nfaked line"))
    assert (response.status_code, response.json) == (
        500,
        {
            "reason": "optuna-dashboard failed; the study may be damaged; "
            "run `khmer-tuner status`, which names the damage"
        },
    )
    assert lines[0].startswith(r"'/api/\x1b[2J\nfaked line' cannot be shown: ")
    assert ("Traceback" in lines[0]) == debug
    assert len(lines) == 1 + debug
