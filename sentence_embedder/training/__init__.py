"""Training: objectives in turn, with checkpoints from which it goes on, on one device or many."""
