"""Families of architectures: a file each, that says where they keep their weights."""
