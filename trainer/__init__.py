"""Rebuilds checkpoints from data, proves them and publishes features. Talks to the services by RPC."""
