import subprocess
import sys
from pathlib import Path

import pytest

import search_spaces
from search_spaces import load_yaml

PACKAGE = Path(search_spaces.__file__).parent


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.yaml")), ids=lambda file: file.name)
def test_every_built_in_yaml_file_loads(file):
    assert load_yaml(file).data


def test_package_declares_its_types():
    assert (PACKAGE / "py.typed").is_file()


def test_import_loads_no_heavy_library():
    heavy = ["torch", "optuna", "sqlalchemy", "numpy", "studies", "tuner"]
    code = f"import sys, search_spaces\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
