"""How Marquee is put to work on machines: on this one (deploy.local) and, in the files beside it, in containers."""
