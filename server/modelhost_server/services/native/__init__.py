"""The native protocol, modelhost.v1."""
