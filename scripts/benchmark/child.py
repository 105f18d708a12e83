"""An interpreter that runs one function and writes down what it returns: TARGET ARGUMENTS ANSWER_FILE."""

from __future__ import annotations

import json
import pkgutil
import sys
from pathlib import Path


def main() -> int:
    """Do so."""
    target, arguments, answer = sys.argv[1:]
    function = pkgutil.resolve_name(target)
    Path(answer).write_text(json.dumps(function(**json.loads(arguments))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
