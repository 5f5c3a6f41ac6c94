"""What the store held at a moment, kept as Parquet in the registry, for rebuilds to go on from."""
