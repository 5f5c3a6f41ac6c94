"""Feast on the same users as our store, in an environment of its own."""
