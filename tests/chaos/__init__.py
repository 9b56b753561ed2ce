"""A server under mixed load, while its processes are killed and stopped and its disk fills up: `make chaos`.

Every answer tells which model and version it is from (see `support.telling`), so none can be wrong unnoticed; and an
oracle (`oracle`) knows what was acknowledged, so nothing can be lost unnoticed.
"""
