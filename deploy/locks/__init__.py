"""Locks of the images: what goes into each, by exact version and by hash. Written by make locks, never by hand."""
