"""What is hosted: scopes, models, versions and their states. Pure logic: no processes, no I/O, no event loop."""
