"""Directories of models that the server follows: what they hold is what is hosted."""
