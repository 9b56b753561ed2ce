"""Other projects' own clients against the real server, each in an environment that pip makes for it.

`make conformance` runs them: `python -m tests.conformance [NAME ...]`. A test module runs in the environment of its
directory, where nothing of ours is installed; the server runs in the environment that this is started from.
"""
