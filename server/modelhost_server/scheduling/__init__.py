"""Whose turn it is: how many predictions of a scope run at once, and how many may wait."""
