#!/usr/bin/env bash
# Installs into .venv and runs `khmer-tuner run` with the same options: generates the default dataset if it is missing,
# and trains the documented presets. Repeating the command resumes an interrupted run.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec .venv/bin/khmer-tuner run "$@"
