"""The run directory: the only database. Paths, states, leases, events, metrics, checkpoints."""
