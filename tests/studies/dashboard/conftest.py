"""A small study with artifacts of all types, and its dashboard served by a separate process."""

import http.client
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import optuna
import pytest

from studies import OutputFolder, StudyInvariants, create_or_join_study, default_storage_url, open_storage
from studies.dashboard.artifacts import artifact_store

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
FILES = {
    "learning_curves.png": ("image/png", PNG),
    "training_config.yaml": ("text/plain", "ខ្មែរ: 1\n".encode()),
    "figures.json": ("application/json", b"[1]"),
    "page.html": ("text/html", b"<script>alert(1)</script>"),
    "drawing.svg": ("image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
    "page.xhtml": ("application/xhtml+xml", b"<html/>"),
    "sly.html": ("Text/HTML; charset=utf-8", b"<script>alert(1)</script>"),
    "unknown": ("application/octet-stream", b"<script>alert(1)</script>"),
}


@dataclass(frozen=True)
class Reply:
    """The response of a server."""

    code: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name):
        return ", ".join(value for key, value in self.headers if key.casefold() == name.casefold())

    @property
    def reason(self):
        return str(json.loads(self.body)["reason"])


@dataclass(frozen=True)
class Served:
    """A running dashboard.

    Attributes:
        url: The URL of the study's page.
        process: The server process.
        folder: The study's output folder.
    """

    url: str
    process: subprocess.Popen[str]
    folder: Path

    def request(self, path, method="GET", body=None, **headers):
        """Send one request with an unchanged path; ``_`` in a header's name stands for ``-``."""
        url = urlsplit(self.url)
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
            for name, value in headers.items():
                if value:
                    connection.putheader(name.replace("_", "-"), value)
            connection.putheader("Content-Length", str(len(body or b"")))
            connection.endheaders(body)
            response = connection.getresponse()
            return Reply(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def study(self):
        """Return the study, with the request that the page repeats every few seconds."""
        reply = self.request("/api/studies/1?after=0")
        assert reply.code == 200, reply
        return dict(json.loads(reply.body))


@dataclass(frozen=True)
class FullStudy:
    """A study on disk.

    Attributes:
        folder: Its output folder.
        artifacts: URL paths of the first trial's artifacts, keyed by file name.
    """

    folder: Path
    artifacts: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="session")
def full_study(tmp_path_factory):
    """A study with a completed trial that has `FILES` and a removed artifact, and a running trial; do not change it."""
    path = tmp_path_factory.mktemp("full_study") / "out"
    full = FullStudy(path)
    study = make_study(path)
    store = artifact_store(OutputFolder(path))
    trial = study.ask()
    for name, (media_type, content) in {**FILES, "gone.png": ("image/png", PNG)}.items():
        (source := path / name).write_bytes(content)
        identifier = optuna.artifacts.upload_artifact(
            artifact_store=store, file_path=str(source), study_or_trial=trial, mimetype=media_type
        )
        full.artifacts[name] = f"/artifacts/1/{trial._trial_id}/{identifier}"
        if name == "gone.png":
            store.remove(identifier)
    for step in range(1, 4):
        trial.report(0.2 * step, step)
    study.tell(trial, 0.6)
    study.ask().report(0.5, 1)
    return full


@pytest.fixture(scope="session")
def served(full_study):
    """The dashboard of `full_study`."""
    with serving(full_study.folder) as dashboard:
        yield dashboard
        assert dashboard.process.poll() is None


@pytest.fixture
def serve():
    """Serve a study's dashboard in a ``with`` statement; a request waits only briefly for a locked database."""
    return serving


@pytest.fixture
def create():
    """Create a study in a folder."""
    return make_study


def make_study(path, *, name="khmer-ocr", url=None, trials=0):
    invariants = StudyInvariants(
        monitor="val_char_accuracy",
        mode="max",
        seed=0,
        dataset={
            "fingerprint": "f00d",
            "train_split": "train",
            "val_split": "val",
            "metadata_path": "/data/metadata.yaml",
        },
        models={},
    )
    path.mkdir(parents=True, exist_ok=True)
    storage = open_storage(url or default_storage_url(path))
    study = create_or_join_study(storage, name, OutputFolder(path), invariants)
    for number in range(trials):
        study.tell(study.ask(), number / 10)
    return study


@contextmanager
def serving(folder, lock_timeout_s=0.2):
    command = [sys.executable, str(HERE / "serve_study.py"), str(folder), str(lock_timeout_s)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            url = process.stdout.readline().strip()
            assert url, process.stderr.read()
            yield Served(url, process, folder)
        finally:
            process.kill()
