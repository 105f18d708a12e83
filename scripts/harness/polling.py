"""A dashboard process and the results of polling a study while it is being trained."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.fixture_study import OUTPUT
from harness.processes import command, environment, python
from harness.run import HarnessError

_TIMEOUT_S = 60
_WRITES = (("POST", "/api/studies"), ("DELETE", "/api/studies/1"), ("PUT", "/api/studies/1/note"))


@dataclass
class Polls:
    """Results of polling a study.

    Attributes:
        counts: Number of polls, keyed by kind of poll.
        problems: One text per failed poll.
    """

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def record(self, name: str, *problems: str) -> None:
        """Count a poll and add its problems; empty texts are ignored."""
        self.counts[name] += 1
        self.problems += [f"{name}: {problem}" for problem in problems if problem]


class DashboardError(HarnessError):
    """Error of a dashboard that did not start; the message is the dashboard's error output."""


class Dashboard:
    """A running dashboard process.

    Attributes:
        address: Host and port of the dashboard, as ``HOST:PORT``.
    """

    def __init__(self, study: Path) -> None:
        """Start a dashboard for the study in a folder.

        Raises:
            DashboardError: The dashboard did not start.
        """
        self._process = subprocess.Popen(
            python(command("dashboard", "--port", "0", "--output-dir", OUTPUT)),
            cwd=study,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        assert self._process.stdout is not None
        found = next(filter(None, (re.search(r"http://([^/\s]+)", line) for line in self._process.stdout)), None)
        if found is None:
            _, errors = self._process.communicate()
            raise DashboardError(errors.strip())
        self.address = found[1]

    def poll(self, polls: Polls) -> dict[str, Any]:
        """Send the requests that the dashboard's page of a study sends; return the details of the study.

        Also sends requests that would change the study, which the dashboard must refuse.
        """
        study = _get(self.address, "/api/studies", polls).get("study_summaries", [{}])[0].get("study_id", 1)
        detail = _get(self.address, f"/api/studies/{study}", polls)
        for trial in detail.get("trials", []):
            for artifact in trial.get("artifacts", []):
                _get(self.address, f"/artifacts/{study}/{trial['trial_id']}/{artifact['artifact_id']}", polls)
        for method, path in _WRITES:
            status, _ = _ask(self.address, method, path)
            refused = status == http.HTTPStatus.METHOD_NOT_ALLOWED
            polls.record("refused", "" if refused else f"{method} {path} returned {status}; expected 405")
        return detail

    def end(self) -> str:
        """Stop the dashboard; return its error messages, empty if there are none."""
        self._process.terminate()
        try:
            _, errors = self._process.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"did not exit within {_TIMEOUT_S} s after SIGTERM"
        return "" if errors.strip() == "stopped" else errors.strip()

    def kill(self) -> None:
        """Kill the dashboard."""
        self._process.kill()
        self._process.communicate()


def _get(address: str, path: str, polls: Polls) -> dict[str, Any]:
    status, body = _ask(address, "GET", path)
    problem = "" if status == http.HTTPStatus.OK else f"{path} returned {status}; expected 200: {body[:200]!r}"
    polls.record("dashboard", problem)
    try:
        return json.loads(body) if path.startswith("/api/") else {}
    except ValueError:
        return {}


def _ask(address: str, method: str, path: str) -> tuple[int, bytes]:
    """Send a request; return the response's status and body, or 0 and the error if there is no response."""
    try:
        with contextlib.closing(http.client.HTTPConnection(address, timeout=_TIMEOUT_S)) as connection:
            connection.request(method, path, headers={"Accept-Encoding": "identity"})
            response = connection.getresponse()
            return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error).encode()
