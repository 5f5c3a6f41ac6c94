"""Writes and reads one checkpoint folder: weights.safetensors, vocabularies.json, manifest.json."""
