#!/usr/bin/env python3
"""Send SIGINT to each command at a random moment of its first second, and check that none prints a traceback.

All commands use the same small but real study, which has two pending trials. Each command must exit with 130, be killed
by SIGINT (signal 2), or finish normally. At the end, `resume` trains the pending trials, and the content that the study
had before the first signal must be unchanged bit for bit: trials, parameters, metrics, checkpoints, curves.

If a signal arrives before the program's first line, the interpreter itself prints a traceback while it imports `site`.
These signals are counted separately.

Example: python scripts/signal_harness.py --signals 50
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from harness.fixture_study import OUTPUT, FixtureStudy
from harness.forks import in_fork, prepare
from harness.processes import LOG_NAME, command, output_of, run_tuner, start_logged, tail
from harness.run import DIFFERENT, EQUAL, HarnessError, option_parser, run_harness
from harness.snapshot import differences, take_snapshot

LATEST_S = 1.0
_STOP_TIMEOUT_S = 30.0
_STUDY = ["--output-dir", OUTPUT]
_SHORT = ["--set", "training.num_epochs=1"]
_UNWANTED = ("Exception ignored", "Traceback", "KeyboardInterrupt", "unexpected")
# Items whose names have these prefixes must not change; other items change when trials are added.
_UNCHANGED = ("trial ", f"{OUTPUT}/", "study: direction")


def commands(small: FixtureStudy) -> dict[str, list[str]]:
    """Return the arguments of ``khmer-tuner`` in the study's folder, keyed by command."""
    return {
        "run": small.run,
        "search": ["search", "--trials", "1", *_STUDY],
        "resume": small.resume,
        "worker": ["worker", *_STUDY],
        "enqueue": ["enqueue", "--trials", "1", *_STUDY],
        "stop": ["stop", *_STUDY],
        "data": ["data", "--samples", "200", "--out", "more_data"],
        "validate": ["validate", "../experiments.yaml"],
        "status": ["status", *_STUDY],
        "show": ["show", "plain", *_STUDY],
        "export": ["export", "--format", "csv", "--results-file", "-", *_STUDY],
        "report": ["report", *_STUDY],
        "dashboard": ["dashboard", "--port", "0", *_STUDY],
        "best": ["best", "--out", "best.yaml", *_STUDY],
        "confirm": ["confirm", "--top", "2", "--seeds", "1", *_SHORT, *_STUDY],
        "predict": ["predict", "../data/test", *_STUDY],
        "evaluate": ["evaluate", "--metadata", "../data/metadata.yaml", *_STUDY],
        "import": ["import", "study.jsonl", "--output-dir", "imported"],
        "export-model": ["export-model", *_STUDY],
        "clean": ["clean", *_STUDY],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the harness; return the exit code."""
    parser = option_parser(__doc__)
    parser.add_argument("--signals", metavar="K", type=int, default=500, help="signals to send (default: %(default)s)")
    return run_harness(parser.parse_args(argv), "signal_harness_", _interrupt)


def _interrupt(options: argparse.Namespace, folder: Path) -> int:
    prepare()
    small, study = FixtureStudy(folder, search_trials=3), folder / "study"
    study.mkdir()
    in_fork(small.write_inputs)
    _succeed(study, small.run)
    _succeed(study, ["export", "--format", "study", "--results-file", "study.jsonl", *_STUDY])
    before, rng = in_fork(take_snapshot, study), random.Random(options.seed)
    _succeed(study, ["enqueue", "--trials", "2", *_STUDY])
    lines = list(commands(small).items())
    latest_s, sent, ways, problems = dict.fromkeys(dict(lines), LATEST_S), Counter[str](), Counter[str](), []
    while sent.total() < options.signals:
        name, arguments = lines[sent.total() % len(lines)]
        started_s, moment_s = time.monotonic(), rng.uniform(0, latest_s[name])
        process = start_logged(command(*arguments), study / LOG_NAME)
        try:
            process.wait(moment_s)
            # Later signals would not reach a process of this command.
            latest_s[name] = min(latest_s[name], time.monotonic() - started_s)
            continue
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        sent[name] += 1
        way, problem = _wait_for_exit(process, study)
        ways[way] += 1
        if problem:
            problems.append(f"{name}, SIGINT after {moment_s:.3f} s: {problem}")
            print(problems[-1], flush=True)
    print(", ".join(f"{count} x {name}" for name, count in sent.items()))
    print(f"{sent.total()} signals; commands exited {', '.join(f'{way}: {n}' for way, n in sorted(ways.items()))}")
    _succeed(study, small.resume)
    after = in_fork(take_snapshot, study)
    changed = [one for one in differences(before, after) if one.item in before and one.item.startswith(_UNCHANGED)]
    print(*changed, f"study items changed by the signals: {len(changed)}", f"problems: {len(problems)}", sep="\n")
    return DIFFERENT if problems or changed else EQUAL


def _succeed(study: Path, arguments: Sequence[str]) -> None:
    done = run_tuner(study, *arguments)
    if done.returncode:
        raise HarnessError(f"{arguments[0]} exited with {done.returncode}; expected 0:\n{tail(done.stderr)}")


def _wait_for_exit(process: subprocess.Popen[bytes], study: Path) -> tuple[str, str]:
    """Wait until an interrupted process exits; return how it exited, and a problem or an empty text."""
    try:
        code = process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "by SIGKILL", f"did not exit within {_STOP_TIMEOUT_S:.0f} s:\n{tail(output_of(study))}"
    output = output_of(study)
    if found := [word for word in _UNWANTED if word in output]:
        spec = find_spec("tuner")
        program = str(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else ""
        if "Exception ignored" not in output and f'File "{program}' not in output:
            return "while Python started", ""
        return "with a traceback", f"printed an unexpected message:\n{output[output.index(found[0]) :][:2000]}"
    expected = {0: "normally", 130: "with 130", -signal.SIGINT: "by SIGINT"}
    if code in expected:
        return expected[code], ""
    return f"with {code}", f"exited with {code}; expected 0, 130 or SIGINT (signal 2):\n{tail(output)}"


if __name__ == "__main__":
    sys.exit(main())
