"""Many callers, served together."""
