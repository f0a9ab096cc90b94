"""The command line: encode a file, search a file, describe a model, compare texts."""
