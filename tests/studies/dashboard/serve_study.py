"""Serves a study's dashboard like the command until it is killed; started by the tests.

serve_study.py FOLDER LOCK_TIMEOUT_S: prints the URL of the study's page, and errors to standard error.
"""

import sys
from pathlib import Path

from studies import load_study
from studies.dashboard.server import Address, DashboardServer
from studies.dashboard.view import dashboard_app, page_path


def serve(path, lock_timeout_s):
    study, folder = load_study(path)
    address = Address.of("127.0.0.1")
    with DashboardServer(address, 0) as server:
        app = dashboard_app(study, folder, address, log=_log, lock_timeout_s=lock_timeout_s)
        print(server.url + page_path(study), flush=True)
        server.serve(app)


def _log(line):
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]))
