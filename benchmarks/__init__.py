"""What modelhost's design rests on, measured. Run from the repository's root: python -m benchmarks.bench

Each writes its table to benchmarks/results. Times mean something only on a machine that does nothing else.
"""
