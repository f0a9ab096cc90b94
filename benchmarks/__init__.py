"""Speed, memory and accuracy beside what else computes sentence embeddings; ``make bench`` runs it.

Every engine works in a process and an environment of its own (``worker.py``, ``worker_process.py``). Rounds
alternate between the engines (``measurement.py``): a machine that slows down for a while does so for all of them.
"""
