"""`dashboard`, called in a separate process."""

import argparse
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest

from tuner.cli.commands import dashboard as dashboard_command

LINE = re.compile(r"(http://\S+)(/dashboard/studies/1) shows study khmer-ocr; press Ctrl-C to stop\n")


@contextmanager
def dashboard(folder, *options, code=""):
    """Serve a study on a free port; yield the process and the URL without a path."""
    start = ["-c", code] if code else ["-m", "tuner"]
    command = [sys.executable, *start, "dashboard", "--port", "0", "--output-dir", str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            match = LINE.fullmatch(line)
            assert match is not None, line + process.stderr.read()
            yield process, match[1]
        finally:
            process.kill()


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_dashboard_serves_the_study_until_a_signal(run_study, tree, signum, code):
    before = tree(run_study.folder)
    with dashboard(run_study.folder) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        assert "bundle.js" in get(url + "/dashboard/studies/1")
        assert "ខ្មែរ" in get(url + "/csv/1")
        process.send_signal(signum)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (code, "", "stopped\n")
    assert tree(run_study.folder) == before


def test_dashboard_does_not_import_torch_and_debug_prints_requests(run_study):
    code = "import sys; from tuner.__main__ import main; main(sys.argv[1:]); print({'torch'} & set(sys.modules))"
    with dashboard(run_study.folder, "--debug", code=code) as (process, url):
        get(url + "/api/studies/1?after=0")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert output == "set()\n"
    assert errors == "GET '/api/studies/1' 200\nstopped\n"


def test_public_prints_a_warning(run_study):
    with dashboard(run_study.folder, "--host", "0.0.0.0", "--public") as (process, url):
        name, port = url.removeprefix("http://").split(":")
        assert name == socket.gethostname()
        assert "khmer-ocr" in get(f"http://127.0.0.1:{port}/api/studies")
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert errors == f"warning: all machines that can reach {url} can see the study without a password\nstopped\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--host", "0.0.0.0"], ["--host: found '0.0.0.0', which other machines can reach without a password"]),
        (["--host", "::"], ["--host: found '::', which other machines can reach"]),
        (["--public"], ["--public: found with --host 127.0.0.1, which only this machine can reach"]),
        (["--host", "a..b"], ["--host: found 'a..b'; the host cannot be resolved"]),
        (["--host", ""], ["--host: found ''; expected a value that is not empty"]),
        (["--port", "65536"], ["--port: found '65536'; expected a whole number from 0 to 65,535"]),
        (
            ["--port", "x", "--host", "0.0.0.0", "--study", "other"],
            ["--port: found 'x'", "--host: found '0.0.0.0'", "study 'khmer-ocr', not to 'other'"],
        ),
        (
            ["--storage", "postgresql+psycopg2://me:secret@host/base?sslpassword=secret"],
            ["storage URL: found 'postgresql+psycopg2://me:***@host/base'"],
        ),
    ],
)
def test_invalid_options_are_reported_together_and_no_port_is_opened(cli, run_study, options, expected):
    outcome = cli("dashboard", "--output-dir", run_study.folder, *options)
    problems = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert (outcome.code, outcome.out, len(problems)) == (2, "", len(expected))
    for problem, text in zip(problems, expected, strict=True):
        assert text in problem
    assert "secret" not in outcome.err


@pytest.mark.parametrize(
    ("host", "public", "expected"),
    [
        ("0.0.0.0", False, "other machines can reach without a password"),
        ("127.0.0.1", True, "which only this machine can reach"),
    ],
)
def test_public_address_requires_the_public_option(cli, run_study, host, public, expected):
    outcome = cli.error(
        "dashboard", "--output-dir", run_study.folder, "--host", host, *(["--public"] if public else [])
    )
    assert expected in outcome


def test_host_name_is_resolved_only_once(run_study, monkeypatch):
    meanings = iter(["127.0.0.1", "0.0.0.0"])
    looked_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *args, **more: looked_up(next(meanings), *args, **more))
    options = argparse.Namespace(
        host="here", public=False, output_dir=str(run_study.folder), storage=None, study=None, problems=[]
    )
    address, _ = dashboard_command.prepare(options)
    assert (address.host, address.ip) == ("here", "127.0.0.1")  # the server listens on this IP


def test_busy_port_is_reported(cli, run_study):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        outcome = cli("dashboard", "--output-dir", run_study.folder, "--port", port)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: --port: found {port}; the port is in use")


@pytest.mark.parametrize("exists", [False, True])
def test_without_a_study_nothing_is_created(cli, working_dir, tree, exists):
    if exists:
        (working_dir / "out").mkdir()
    before = tree(working_dir)
    assert "create one with `khmer-tuner run`" in cli.error("dashboard", "--output-dir", "out")
    assert tree(working_dir) == before
