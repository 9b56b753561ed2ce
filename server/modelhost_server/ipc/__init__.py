"""How server and workers talk: frames over a Unix socket, large tensors in shared memory. Used on both sides."""
