"""Networks. They take plain arguments and know nothing of data, recipes, runs or Ray."""
