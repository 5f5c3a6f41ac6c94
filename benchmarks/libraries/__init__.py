"""Libraries that a user would pick, asked on the same rows as our models, in an environment of their own."""
