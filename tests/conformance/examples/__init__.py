"""Triton's own example programs, unmodified, against the server: `python -m tests.conformance.examples DIRECTORY`.

They are no part of this repository: DIRECTORY is `src/python/examples` of a checkout of triton-inference-server/client.
"""
