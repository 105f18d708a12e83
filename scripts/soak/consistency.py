"""Checks of each poll of a study, alone and against the previous poll."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

_SCHEMA = Path(__file__).parents[2] / "tests" / "studies" / "export" / "results_schema.json"
_ENDED = frozenset({"Complete", "Pruned", "Fail"})


@dataclass
class Exports:
    """A checker of one study's exports, in order of time."""

    _completed: int = 0
    _entries: dict[str, Any] = field(default_factory=dict)

    def problems(self, text: str) -> Iterator[str]:
        """Check the next export; yield its problems.

        Args:
            text: Content of the exported JSON file.
        """
        import jsonschema

        try:
            results = json.loads(text, parse_constant=_refuse)
            jsonschema.validate(results, json.loads(_SCHEMA.read_text(encoding="utf-8")))
        except ValueError as error:
            yield f"invalid JSON ({error}): {text[:200]!r}"
            return
        except jsonschema.ValidationError as error:
            yield f"differs from the documented schema at {error.json_path}: {error.message}"
            return
        if results["experiments_completed"] < self._completed:
            yield f"experiments_completed fell from {self._completed} to {results['experiments_completed']}"
        self._completed = results["experiments_completed"]
        entries = {entry["experiment_name"]: entry for entry in results["all_results"]}
        if len(entries) < len(results["all_results"]):
            yield "an experiment appears twice in all_results; expected each once"
        yield from _changes(self._entries, entries)
        self._entries = entries


@dataclass
class Details:
    """A checker of the dashboard's responses for one study, in order of time."""

    _trials: int = 0
    _ended: dict[str, Any] = field(default_factory=dict)

    def problems(self, detail: Mapping[str, Any]) -> Iterator[str]:
        """Check the next response; yield its problems.

        Args:
            detail: The response of ``/api/studies/ID``; empty if the request failed, which is recorded separately.
        """
        trials = detail.get("trials")
        if trials is None:
            return
        if len(trials) < self._trials:
            yield f"the number of trials fell from {self._trials} to {len(trials)}"
        self._trials = len(trials)
        ended = {
            f"trial {trial['number']}": {"state": trial["state"], "values": trial.get("values")}
            for trial in trials
            if trial["state"] in _ENDED
        }
        yield from _changes(self._ended, ended)
        self._ended = ended


def status_problems(text: str) -> Iterator[str]:
    """Check the output of ``status --json``; yield its problems."""
    try:
        status = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        yield f"invalid JSON ({error}): {text[:200]!r}"
        return
    for row in status["trials"]:
        if (row["seconds"] or 0.0) < 0:
            yield f"{row['name']} has a negative duration: {row['seconds']} s"
    if (status["eta_seconds"] or 0.0) < 0:
        yield f"the remaining time is negative: {status['eta_seconds']} s"


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield a problem for each entry of the previous poll that is missing or has changed."""
    for name, previous in before.items():
        if name not in now:
            yield f"{name} has disappeared"
        elif now[name] != previous:
            yield f"{name} changed from {previous} to {now[name]}"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
