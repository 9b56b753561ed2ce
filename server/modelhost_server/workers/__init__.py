"""The server's side of worker processes: starting, feeding and watching them."""
