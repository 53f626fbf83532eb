"""Publishes to TOPIC."""

from __future__ import annotations

import os

from pipeline.publish import relay


def main() -> None:
    """Run until SIGTERM."""
    os.environ["NAMESPACE"] = os.environ["TOPIC"].rpartition(".")[0]
    os.environ["RELAY_NAME"] = "relay"  # the only one, and back at once when it was killed
    relay.main()
