"""Marquee on one machine without containers: demo, up, doctor."""
