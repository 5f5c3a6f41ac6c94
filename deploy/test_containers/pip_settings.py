"""Reads how pip reaches packages on this machine, so that builds in containers can do the same. Knows no Docker."""

import ast
import configparser
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

CA_BUNDLE_IN_BUILD = "/run/secrets/ca_bundle"

_HANDED_ON = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout")
_CA_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass(slots=True)
class PipSettings:
    """How pip reaches packages here.

    Attributes:
        options: What a pip.conf in a container should say; nothing that names a folder of this machine.
        ca_bundle: Certificates that this machine trusts; None if it says nothing of them.
        wheel_folders: Folders of this machine in which pip looks for wheels.
    """

    options: dict[str, str] = field(default_factory=dict)
    ca_bundle: Path | None = None
    wheel_folders: list[Path] = field(default_factory=list)

    @classmethod
    def of_this_machine(cls) -> "PipSettings":
        """Reads pip's settings from its files and the environment."""
        command = [sys.executable, "-m", "pip", "config", "list"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        settings = cls()
        bundles = [os.environ[name] for name in _CA_VARIABLES if name in os.environ]
        for line in listed.splitlines():
            key, _, quoted = line.partition("=")
            name, value = key.rsplit(".", 1)[-1], str(ast.literal_eval(quoted))
            if name == "cert":
                bundles.insert(0, value)
            elif name == "find-links":
                folders = [Path(word.removeprefix("file://")) for word in value.split()]
                settings.wheel_folders += [f for f in folders if f.is_dir() and f not in settings.wheel_folders]
            elif name in _HANDED_ON:
                words = [word for word in value.split() if not word.startswith("file:")]
                if words:
                    settings.options[name] = " ".join(words)
        settings.ca_bundle = next((Path(bundle) for bundle in bundles if Path(bundle).is_file()), None)
        return settings

    def write(self, path: Path) -> None:
        """Writes the pip.conf of a container; it names the bundle by where builds find it."""
        parser = configparser.RawConfigParser()
        parser["global"] = dict(self.options)
        if self.ca_bundle is not None:
            parser["global"]["cert"] = CA_BUNDLE_IN_BUILD
        with path.open("w", encoding="utf-8") as file:
            parser.write(file)
