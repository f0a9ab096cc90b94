"""Checkpoints as ``encode`` needs them, read without transformers, whose import takes longer than all else."""
