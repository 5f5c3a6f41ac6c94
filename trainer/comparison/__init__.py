"""Compares models on identical rows: runs them, keeps what they answered, judges the answers, prints a table."""
