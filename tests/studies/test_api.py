import subprocess
import sys


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
