"""Export a trained model as an ONNX file.

Examples:
  khmer-tuner export-model
  khmer-tuner export-model --trial baseline_optimized --out digits.onnx

PyTorch and ONNX Runtime read all validation images, and the file is written
only if all readings are equal. The result, vocabulary, settings and metrics
are in its metadata. `predict --checkpoint reader.onnx` reads images with it.
Needs: pip install onnx onnxscript onnxruntime
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tuner.cli.errors import SUCCESS, collector, print_message
from tuner.cli.existing_study import load
from tuner.cli.options import Command, add_option, add_study_options, non_empty
from tuner.cli.output import print_json, print_lines

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

# The checkpoint, its dataset if the study knows it, and what the study says about the trial.
_Source = tuple[Path, str | None, dict[str, Any]]


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_option(parser, "--trial", "TRIAL", non_empty, "number or name of the trial to export (default: the best trial)")
    add_option(parser, "--checkpoint", "FILE", non_empty, "checkpoint to export, instead of a trial of a study")
    out = "file to write; an existing file is overwritten only if `export-model` wrote it"
    add_option(parser, "--out", "FILE", non_empty, out, default="reader.onnx")
    add_option(parser, "--metadata", "FILE", non_empty, "metadata.yaml of the training's dataset, if it was moved")
    add_option(parser, "--license", "TEXT", non_empty, "licence of the model, for its metadata", default="unspecified")
    add_study_options(parser, json=True)


def prepare(options: argparse.Namespace) -> _Source:
    """Find the checkpoint, and check that ``--out`` can be written and that the packages are installed."""
    from importlib.util import find_spec

    from tuner.session.output_paths import ONNX_MODEL, check_output_file

    problems = collector(options)
    with problems.collect():
        source = _source(options)
    with problems.collect():
        check_output_file(Path(options.out), ONNX_MODEL, options.output_dir, "--out")
    if not options.out.lower().endswith(".onnx"):
        problems.add([f"--out: found {options.out!r}; expected a file name that ends in .onnx; add this ending"])
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        remedy = f"install them: pip install {' '.join(_PACKAGES)}"
        problems.add([f"export-model: missing Python packages: {', '.join(missing)}; {remedy}"])
    problems.raise_all()
    return source


def run(options: argparse.Namespace, source: _Source) -> int:
    """Export the model, compare it with the checkpoint, write the file and print the result of the comparison."""
    from search_spaces.diagnostics.disk import write_bytes
    from tuner.analysis.model_export import export_model
    from tuner.display.terminal import printable, shown_path
    from tuner.inference.checkpoint_reader import reader_of_checkpoint

    checkpoint, metadata_path, origin = source
    print_message(f"checkpoint: {printable(shown_path(checkpoint))}")
    reader = reader_of_checkpoint(checkpoint, device="cpu")
    metadata_path = options.metadata or metadata_path or reader.config.metadata_path
    content, comparison = export_model(reader, metadata_path, origin | {"license": options.license})
    out = Path(options.out)
    write_bytes(out, content)
    if options.json:
        print_json({"file": str(out.absolute()), "bytes": len(content), "comparison": comparison} | origin)
    else:
        print_lines([f"written: {shown_path(out)}, {len(content) / 1e6:.2f} MB", comparison["text"]])
    return SUCCESS


def _source(options: argparse.Namespace) -> _Source:
    from search_spaces import ConfigurationError
    from studies import find_trial, study_invariants
    from tuner.analysis.best_trial import existing_checkpoint, find_winner

    if options.checkpoint is not None:
        if options.trial is not None:
            raise ConfigurationError("--trial and --checkpoint: found both; leave out one of them")
        return Path(options.checkpoint), None, {}
    study, folder = load(options)
    is_best = options.trial is None
    record = find_winner(study, folder).record if is_best else find_trial(study, folder, options.trial)[0]
    origin = {"study": study.study_name, "trial": record.experiment_name, "trial_number": record.number}
    return existing_checkpoint(record, folder), str(study_invariants(study).dataset["metadata_path"]), origin


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
