# Sourced by the other scripts: makes .venv and installs this project into it, once per change of pyproject.toml.
# pip's own environment variables (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, ...) are honoured; PYTHON names another Python.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: Python 3.11 or newer is needed; '$python' is not. Name another one: PYTHON=python3.12 bash $0" >&2
    exit 2
fi

installed=.venv/installed-pyproject.toml
if ! cmp -s pyproject.toml "$installed"; then
    echo "installing into .venv (the first time a few minutes, PyTorch is large) ..." >&2
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
    cp pyproject.toml "$installed" # last: an installation that was interrupted is repeated
fi
