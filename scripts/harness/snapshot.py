"""Snapshots of studies, which are equal if and only if the studies are equal bit for bit."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from harness.fixture_study import RESULTS, open_study

Snapshot = dict[str, str]
Items = Iterator[tuple[str, object]]

_TIMES = {"epoch_seconds", "memory_mb", "cpu_percent", "gpu_memory_mb"}
# Parts of a checkpoint that differ between processes: the global random state, which does not affect training.
_PROCESS_STATE = {"rng", "cuda_rng"}
# The size of a checkpoint depends on the length of the folder's path, which the checkpoint contains.
_OUTCOME_TIMES = {"training_time_s", "epoch_seconds_median", "checkpoint_bytes"}
_OUTCOME_TIMES |= {"images_per_s_batch_1", "images_per_s_batch_64"}
_RESULT_TIMES = {"timestamp", "training_time"}
_TIMED_LINES = ("| seconds per epoch", "| training time", "| size and speed")
_MISSING = "(missing)"
_SHOWN_BEFORE, _SHOWN_AFTER = 60, 200


@dataclass(frozen=True)
class Difference:
    """An item whose contents differ between the reference study and another study."""

    item: str
    expected: str
    found: str

    def __str__(self) -> str:
        """Format three lines: the item, then its two texts around the first difference."""
        pairs = enumerate(zip(self.expected, self.found, strict=False))
        first = next((index for index, (one, other) in pairs if one != other), 0)
        start = max(0, first - _SHOWN_BEFORE)
        shown = [
            ("... " if start else "") + value[start : first + _SHOWN_AFTER] for value in (self.expected, self.found)
        ]
        return f"{self.item}\n    reference: {shown[0]}\n    found:     {shown[1]}"


def take_snapshot(folder: Path) -> Snapshot:
    """Read a study; return the text of each item, keyed by the item's name. Call this only in a forked child process.

    Values that depend on the time, the process or the folder are left out: times, memory, attempts, the folder's path.
    """
    study = open_study(folder)
    trials = study.get_trials(deepcopy=False)
    items = chain(
        _study_items(study, trials),
        _file_items(folder),
        _note_items(study, trials),
        *(_trial_items(trial) for trial in trials),
    )
    texts = {name: json.dumps(value, sort_keys=True, ensure_ascii=False) for name, value in items}
    return {name: text.replace(str(folder), "{study}") for name, text in texts.items()}


def differences(expected: Snapshot, found: Snapshot) -> list[Difference]:
    """Return the items that differ: first those in `expected`, in that order, then those that only `found` contains."""
    names = dict.fromkeys([*expected, *found])
    pairs = [Difference(name, expected.get(name, _MISSING), found.get(name, _MISSING)) for name in names]
    return [pair for pair in pairs if pair.expected != pair.found]


def experiment_names(snapshot: Snapshot) -> list[str]:
    """Return the experiment name of each trial, in order of trial number."""
    names: list[str] = json.loads(snapshot["study: trials"])
    return names


def why_ended(snapshot: Snapshot) -> list[str]:
    """Return the reason for which each trial ended, in order of trial number."""
    ends: list[str] = json.loads(snapshot["study: why trials ended"])
    return ends


def _note_items(study: Any, trials: list[Any]) -> Items:
    """Yield the lines of each trial's dashboard note, without the lines that contain times."""
    attributes = study._storage.get_study_system_attrs(study._study_id)
    for trial in trials:
        note = attributes.get(f"dashboard:{trial._trial_id}:note_str:0", "")
        lines = [line for line in note.splitlines() if not line.startswith(_TIMED_LINES)]
        yield f"trial {trial.number}: note", lines


def _study_items(study: Any, trials: list[Any]) -> Items:
    from studies import read_record, study_prior

    yield "study: prior", asdict(study_prior(study))
    records = [read_record(trial) for trial in trials]
    yield "study: trials", [record.experiment_name for record in records]
    yield "study: why trials ended", [trial.user_attrs.get("outcome", {}).get("why_ended") for trial in trials]
    yield "study: direction and metric", [study.direction.name, study.metric_names]
    for name, value in study.user_attrs.items():
        if name != "folder":
            yield f"study: attribute {name}", value


def _trial_items(trial: Any) -> Items:
    from optuna.distributions import distribution_to_json

    prefix = f"trial {trial.number}:"
    yield f"{prefix} state", trial.state.name
    yield f"{prefix} value", trial.values
    yield f"{prefix} parameters", trial.params
    yield f"{prefix} distributions", {name: distribution_to_json(item) for name, item in trial.distributions.items()}
    yield f"{prefix} reports", list(trial.intermediate_values.items())
    yield f"{prefix} system attributes", trial.system_attrs
    for name, value in trial.user_attrs.items():
        if name != "attempts":
            yield f"{prefix} attribute {name}", _without(value, _OUTCOME_TIMES)


def _file_items(folder: Path) -> Items:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [str(path.relative_to(folder)) for path in files]
    yield "leftover files", [name for name in names if is_leftover(Path(name))]
    kept = [name for name in names if not name.endswith(".tmp") and not is_leftover(Path(name))]
    yield "files", [name for name in kept if "tfevents" not in name]
    yield "results file", _without(json.loads((folder / RESULTS).read_text(encoding="utf-8")), _RESULT_TIMES)
    for path, name in zip(files, names, strict=True):
        if name not in kept:
            continue
        for kind, content in _CONTENTS.items():
            if path.match(kind):
                yield name, content(path, folder)
    for curves in sorted({path.parent for path in files if "tfevents" in path.name}):
        yield f"{curves.relative_to(folder)} (TensorBoard)", _curves(curves)


def is_leftover(path: Path) -> bool:
    """Return whether the program should have removed a file that is partly written or only needed to resume a trial.

    The hidden temporary files of small text files do not count. Each write uses a new random name because several
    processes may write at once, so the temporary file remains if the process is killed before the rename.
    """
    if re.fullmatch(r"\.[0-9a-f]{16}\.tmp", path.name):
        return False
    return path.suffix in (".tmp", ".unfinished") or path.name in ("last.pt", "previous.pt", "study.db-journal")


def _metrics(path: Path, folder: Path) -> object:
    return [_without(json.loads(line), _TIMES) for line in path.read_text(encoding="utf-8").splitlines()]


def _artifact(path: Path, folder: Path) -> object:
    return _digest(path.read_bytes().replace(bytes(folder), b"{study}"))


def _checkpoint(path: Path, folder: Path) -> object:
    """Return a digest of each part of a checkpoint, keyed by the part's name."""
    from tuner.training.checkpoints import load_checkpoint

    parts = _without(load_checkpoint(path), _TIMES | _PROCESS_STATE)
    contents = {name: b"".join(_content_bytes(part)).replace(bytes(folder), b"{study}") for name, part in parts.items()}
    return {name: _digest(content) for name, content in contents.items()}


def _content_bytes(value: object) -> Iterator[bytes]:
    """Yield the content of a state as bytes: the names, and every bit of each tensor and number."""
    import torch

    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield f"{name!r}:".encode()
            yield from _content_bytes(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _content_bytes(inner)
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.contiguous().numpy().tobytes()
    else:
        yield repr(value).encode()


def _curves(folder: Path) -> object:
    """Read the curves and images as TensorBoard shows them, keyed by tag.

    A step that was written twice appears twice.
    """
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        IMAGES,
        SCALARS,
        EventAccumulator,
    )

    # Hides TensorBoard's warning that it drops the steps after a checkpoint, which is expected after a resume.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0, IMAGES: 0})
    events.Reload()
    tags = [tag for tag in sorted(events.Tags()["scalars"]) if not tag.startswith("system/")]
    points = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
    images = {tag: events.Images(tag) for tag in sorted(events.Tags()["images"])}
    # The steps of earlier images depend on the time, so only the last image is compared.
    last = {
        tag: [(image.step, _digest(image.encoded_image_string)) for image in shown if image.step == shown[-1].step]
        for tag, shown in images.items()
    }
    return points | last


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _without(data: Any, names: set[str]) -> Any:
    if isinstance(data, dict):
        return {name: _without(value, names) for name, value in data.items() if name not in names}
    return [_without(value, names) for value in data] if isinstance(data, list) else data


_CONTENTS: Mapping[str, Callable[[Path, Path], object]] = {
    "metrics.jsonl": _metrics,
    "*.pt": _checkpoint,
    "*.yaml": lambda path, folder: path.read_text(encoding="utf-8").splitlines(),
    "artifacts/*": _artifact,
}
