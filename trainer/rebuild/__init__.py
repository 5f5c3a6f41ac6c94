"""Closes the loop: what happened since becomes a snapshot, a candidate, and, if it is no worse, what is served."""
