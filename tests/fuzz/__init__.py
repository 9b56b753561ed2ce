"""Fuzzing of all that takes bytes from others. Usage: see `python -m fuzz --help`, with `tests` in PYTHONPATH."""
