"""The same numbers, sooner: lean forward passes that read the weights of a loaded transformer."""
