"""Pictures of Khmer digits: fonts, backgrounds, losses, PNG. Pure functions of seed, split and sample number.

Worker processes import this package and nothing else of the product, so that they start in a tenth of a
second.
"""
