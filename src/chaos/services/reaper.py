"""Removes the containers of a run when that has ended, whoever was killed: ``python reaper.py ENGINE RUN``.

The run's keeper (`chaos.workers.keeper`) tells it to by SIGTERM; so does the kernel, when the keeper was killed. Only
where this process was killed as well do containers stay, until the next run sweeps them (`chaos.services.container`).
It is a script, and imports nothing of the library: it is started once in each run that has containers.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def main(address: str, run: str) -> None:
    """Wait for the signal, and remove what has the label then."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    import docker  # type: ignore[import-untyped] # noqa: PLC0415 - the signal may come while this is imported

    engine = docker.APIClient(address, version="auto")
    signal.sigwait({signal.SIGTERM})

    def remove(made: dict[str, Any]) -> None:
        with contextlib.suppress(docker.errors.APIError):  # somebody else is about to
            engine.remove_container(made["Id"], v=True, force=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(remove, engine.containers(all=True, filters={"label": f"onecharge.run={run}"})))


if __name__ == "__main__":
    main(*sys.argv[1:])
