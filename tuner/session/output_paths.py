"""Checks on output files: where commands may write a file, and which existing files they may replace."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from search_spaces import ConfigurationError
from search_spaces.diagnostics.names import path_problem
from search_spaces.files.regular_files import regular_file
from studies import OutputFolder, default_results_name

BYTE_ORDER_MARK = "\ufeff"  # spreadsheet programs need it to read a file as UTF-8
# The kinds of output files, as named in messages, and the regular expressions that recognise their beginnings.
RESULTS, TRIALS_CSV = "results file of khmer-tuner", "CSV file of trials"
REPORT, PRESET, NETWORKS = "report", "configuration written by `khmer-tuner best`", "model definitions file of a study"
STUDY = "study file of khmer-tuner"
ONNX_MODEL = "model written by `khmer-tuner export-model`"
CONFIRMATION = "comparison written by `khmer-tuner confirm`"
_BEGINNINGS = {
    RESULTS: r'\{\s*"timestamp":\s*"\w*",\s*"experiments_completed":',
    TRIALS_CSV: "number,experiment_name,kind,",
    REPORT: r'(?s)<!DOCTYPE html>.*<meta name="generator" content="khmer-ocr-tuner report">',
    PRESET: "# Written by khmer-tuner best:",
    NETWORKS: "# The model definitions of this study",
    CONFIRMATION: r'\{\s*"set":\s*\[',
    STUDY: r'\{"format": "khmer-ocr-tuner study", ',
    ONNX_MODEL: "(?s)\x08.\x12\x0fkhmer-ocr-tuner",
}
_BEGINNING_BYTES = 2048
# The study's own files directly in the output folder have other suffixes.
_SUFFIXES_IN_OUTPUT_FOLDER = (".json", ".csv", ".html", ".yaml", ".yml", ".onnx", ".jsonl")


def may_replace(path: Path, kind: str) -> bool:
    """Return whether a path is free, or an empty file, or a file of this kind; symbolic links are followed."""
    if not os.path.lexists(path):
        return True
    try:
        with open(path, "rb", opener=regular_file) as file:
            beginning = file.read(_BEGINNING_BYTES).decode("utf-8", "replace").removeprefix(BYTE_ORDER_MARK)
    except OSError:
        return False
    return not beginning or re.match(_BEGINNINGS[kind], beginning) is not None


def check_results_file(path: str | None, output_dir: str | Path) -> None:
    """Check a results file with `check_output_file`; None stands for the default file name."""
    if path == "-":
        raise ConfigurationError(
            "results file: found '-'; expected a file path; use --json to print the results to standard output"
        )
    check_output_file(Path(path or default_results_name("{timestamp}")), RESULTS, output_dir, "results file")


def check_output_file(path: Path, kind: str, output_dir: str | Path, option: str) -> None:
    """Check that a command may write a file and has the permissions for it; nothing is created.

    Args:
        path: The file.
        kind: The kind of file that the command writes, for example `RESULTS`.
        output_dir: The study's output folder.
        option: The name of the option, for the message.

    Raises:
        ConfigurationError: The path is a folder, a device, one of the study's own files or an existing file of another
            kind; or its folder is missing or not writable.
    """
    if problem := _output_file_problem(path, kind, OutputFolder(output_dir)):
        raise ConfigurationError(f"{option} {path}: {problem}")


def _output_file_problem(path: Path, kind: str, output_folder: OutputFolder) -> str | None:
    folder = path.absolute().parent
    if problem := path_problem(path):
        return f"{problem}; choose another file"
    if os.path.isdir(path):
        return "this is a folder; expected a file; add a file name"
    if os.path.exists(path) and not os.path.isfile(path):  # replacing a device or a pipe would destroy it
        return "this is a device or a pipe; expected a file; choose another path"
    if not os.path.isdir(folder):
        return f"there is no folder {folder}; create it first"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"the folder {folder} is not writable; choose another folder"
    real_folder = Path(os.path.realpath(folder))
    is_in_output_folder = real_folder == Path(os.path.realpath(output_folder.path))
    is_harmless = is_in_output_folder and path.suffix.lower() in _SUFFIXES_IN_OUTPUT_FOLDER
    # A symbolic link in the output folder can lead to a file outside the folder.
    if not is_harmless and (output_folder.contains(path) or output_folder.contains(folder / "any")):
        return "this location is reserved for the study's own files; choose a path outside the output folder"
    if (real_folder.parent / "metadata.yaml").exists() and any(real_folder.glob("*.png")):
        return "this folder contains the images of a dataset; choose another folder"
    if not may_replace(path, kind):
        return f"this file exists and is not a {kind}, so it is not overwritten; choose another name, or delete it"
    return None


def timestamp() -> str:
    """Format the current time as in the names of results files."""
    return time.strftime("%Y%m%d_%H%M%S")
