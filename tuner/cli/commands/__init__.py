"""The commands of ``khmer-tuner``, one module each."""
