"""Wire-compatible copies of other projects' messages, under names of our own."""
