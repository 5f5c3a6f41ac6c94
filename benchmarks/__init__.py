"""Benchmarks: each file answers one question. results/ keeps every figure with its command, machine and commit."""
