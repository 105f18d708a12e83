#!/usr/bin/env bash
# Runs the tests, two files at a time: installs into .venv, then pytest.
# Options are pytest's; `-m slow` runs the long ones.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
