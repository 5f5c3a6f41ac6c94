"""Images and containers for the container suite: an engine, stand-ins for the base images, builds, compose."""
