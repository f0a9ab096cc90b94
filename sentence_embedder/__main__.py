"""``python -m sentence_embedder``: the command line."""

import sys

from sentence_embedder.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
