#!/usr/bin/env python3
"""The documented main script: the same as ``khmer-tuner run``, with the same options.

Example: python scripts/phase3_hyperparameter_tuning.py --experiments conservative_small baseline_optimized
"""

import sys

from tuner.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
