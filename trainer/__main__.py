"""Runs the trainer: `python -m trainer --help`."""

from trainer.commands.app import make_app


def main() -> None:
    """Runs the command that the arguments name."""
    make_app()()


if __name__ == "__main__":
    main()
