"""Ray: clusters, jobs, the trainer and its workers. The only folder that imports ray."""
