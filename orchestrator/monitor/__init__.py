"""Live views over a run directory: what changed since the last look, as values that a screen or a script can show."""
