#!/usr/bin/env bash
# Trains the documented presets: installs into .venv, draws the default dataset if there is none, runs `khmer-tuner run`.
# Repeating it goes on where it stopped. Options are those of `khmer-tuner run`.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec .venv/bin/khmer-tuner run "$@"
