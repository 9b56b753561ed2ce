"""Makes what the store wants come true: starts workers, loads, unloads, recovers, and dispatches predictions."""
