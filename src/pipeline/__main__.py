"""`python -m pipeline WORKER`: run one worker until SIGTERM; `slot` ends when the slot is made.

Settings come from the environment. For people there are `up` (all of it, on this machine), `gauges` (what is trouble),
`replay GROUP` (dead letters go back) and `rewind GROUP` (it begins anew), each with `--help`.
"""

from __future__ import annotations

import argparse
import sys
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
    "reconcile": "pipeline.reconcile",
    "display": "pipeline.display.page",
    "observe": "pipeline.observe.exporter",
    "operator": "pipeline.display.operators",
    "gateway": "pipeline.gateway.server",
}
TOOLS = {
    "replay": "pipeline.quarantine.replay",
    "rewind": "pipeline.process.rewind",
    "gauges": "pipeline.observe.look",
    "up": "pipeline.up",
}  # for people, with options


def main() -> None:
    """Import what is named on the command line, and only that, and run it."""
    if sys.argv[1:2] and sys.argv[1] in TOOLS:
        import_module(TOOLS[sys.argv[1]]).main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    parser.add_argument("worker", choices=[*WORKERS, *TOOLS])
    import_module(WORKERS[parser.parse_args().worker]).main()


if __name__ == "__main__":
    main()
