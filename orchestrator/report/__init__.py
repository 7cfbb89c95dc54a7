"""Reports on runs: their curves, their figures beside the paper's, and how far their settings are from its."""
