"""The models by name, each a module of its own behind a serving form of `two_tower.serving`."""
