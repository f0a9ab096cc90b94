"""Pools: ``encode`` in several processes at the same time."""
