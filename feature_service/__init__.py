"""Keeps users, watch histories, movies and events in Redis, behind gRPC."""
