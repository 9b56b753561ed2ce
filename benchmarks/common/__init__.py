"""What the benchmarks share."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]

# TensorFlow's chatter, here and in all processes started from here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
