"""What a run will do: from a recipe and a cluster to a plan with every derived number."""
