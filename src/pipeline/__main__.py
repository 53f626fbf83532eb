"""`python -m pipeline WORKER`: run one worker until SIGTERM; `slot` ends when the slot is made.

Settings come from the environment.
"""

from __future__ import annotations

import argparse
from importlib import import_module

WORKERS = {
    "api": "pipeline.write.api",
    "relay": "pipeline.publish.relay",
    "slot": "pipeline.publish.slot",
    "watch": "pipeline.publish.watch",
    "payment": "pipeline.process.payment",
    "inventory": "pipeline.process.inventory",
    "notification": "pipeline.process.notification",
    "retry": "pipeline.process.retry",
    "gateway": "pipeline.gateway.server",
}


def main() -> None:
    """Import the worker named on the command line, and only that one, and run it."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    parser.add_argument("worker", choices=WORKERS)
    import_module(WORKERS[parser.parse_args().worker]).main()


if __name__ == "__main__":
    main()
