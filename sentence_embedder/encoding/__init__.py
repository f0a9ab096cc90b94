"""Texts → rows: the way of a text through ``encode``, a station a file."""
