#!/usr/bin/env bash
# Installs into .venv and runs pytest with the same options in two processes; `-m slow` selects the long tests.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
