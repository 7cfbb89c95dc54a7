"""Training: optimiser, loop, evaluation and the tensors of a checkpoint. Never imports Ray or a terminal."""
