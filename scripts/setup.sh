# Sourced by the other scripts: creates .venv and installs this project into it; reinstalls it after each change of
# pyproject.toml. pip's environment variables (such as PIP_INDEX_URL) apply; PYTHON selects the interpreter.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: '$python' is not Python 3.11 or newer; use a newer one: PYTHON=python3.12 bash $0" >&2
    exit 2
fi

installed=.venv/installed-pyproject.toml
if ! cmp -s pyproject.toml "$installed"; then
    echo "installing into .venv (takes a few minutes the first time, since PyTorch is large) ..." >&2
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
    cp pyproject.toml "$installed" # last, so that an interrupted installation is repeated
fi
