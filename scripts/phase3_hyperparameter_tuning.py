#!/usr/bin/env python3
"""The documented main script, which runs ``khmer-tuner run`` with the same options.

The documented names can be imported from it: ``from phase3_hyperparameter_tuning import HyperparameterTuner``.

Example: python scripts/phase3_hyperparameter_tuning.py --experiments conservative_small baseline_optimized
"""

import sys

try:
    # PEP 562: the documented names are imported on first use, since --help needs no PyTorch.
    from tuner import __getattr__ as __getattr__
    from tuner.__main__ import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error}; install the package first: bash scripts/setup.sh, then use .venv/bin/python")

if __name__ == "__main__":
    sys.argv.insert(1, "run")
    sys.exit(main())
