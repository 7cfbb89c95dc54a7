"""Images: what there is, in which order it is read, and how it is cropped. Knows nothing of recipes, runs or Ray."""
