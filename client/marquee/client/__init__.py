"""What every caller of a Marquee service uses: channels, deadlines, retries, and the codec of the wire columns."""
