"""What executes models. Imported in worker and converter processes only."""
