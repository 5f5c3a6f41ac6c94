"""Serves our towers by what a user might take instead of model_service; `beside_peers.py` asks them all."""
