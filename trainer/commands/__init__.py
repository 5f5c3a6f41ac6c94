"""The commands of `python -m trainer`, one file per family."""
