"""Where models come from: paths of this machine, uploads, and remote places; each becomes a path here."""
