import subprocess
import sys

import studies


def test_public_names_are_sorted_and_defined():
    assert studies.__all__ == sorted(studies.__all__, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(studies, name) for name in studies.__all__)


def test_studies_imports_neither_torch_nor_tuner():
    code = (
        "import sys, tempfile, studies\n"
        "from studies import *\n"
        "folder = tempfile.mkdtemp()\n"
        "open_storage(default_storage_url(folder))\n"
        "print(sorted({'torch', 'tuner'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
