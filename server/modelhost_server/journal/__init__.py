"""What the server has told callers, on disk: read at the start, written before they are answered."""
