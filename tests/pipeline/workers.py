"""Workers as processes, a port that opens late, and the few rows that tests put in and look at."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from chaos.services.ports import Port, lease_port
from chaos.waiting import Deadline, wait_until
from pipeline.write.orders import EVENT

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from chaos.workers.supervisor import Supervisor

PAYLOAD = {"customer_id": "c-1", "sku": "sku-1", "quantity": 1, "amount": 1999, "currency": "EUR"}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PATIENCE_S = 20.0
MAINS = {
    "api": "pipeline.write.api:main",
    "api_fails": "tests.twins.undocumented:fails",
    "api_refuses": "tests.twins.undocumented:refuses",
    "api_tells_more": "tests.twins.undocumented:tells_more",
    "api_ignores": "tests.twins.undocumented:ignores",
    "relay": "pipeline.publish.relay:main",
    "watch": "pipeline.publish.watch:main",
    "never_confirms": "tests.twins.never_confirms:main",
    "payment": "pipeline.process.payment:main",
    "thin": "tests.thin.payment:main",
    "inventory": "pipeline.process.inventory:main",
    "notification": "pipeline.process.notification:main",
    "reconcile": "pipeline.reconcile:main",
    "display": "pipeline.display.page:main",
    "operator": "pipeline.display.operators:main",
    "observe": "pipeline.observe.exporter:main",
    "gateway": "pipeline.gateway.server:main",
}
_NUMBERS = itertools.count()
_LEASES: list[Port] = []


def until(condition: Callable[[], Any]) -> Any:
    """Wait until `condition` returns something true, and return that."""
    return wait_until("a condition of this test", condition, Deadline(PATIENCE_S))


class Worker:
    """A worker of the pipeline as a process of its own, and what it writes to its log."""

    def __init__(self, supervisor: Supervisor, name: str, directory: Path, **env: object) -> None:
        self.port = env.get("PORT")
        zygote = supervisor.zygote([main.partition(":")[0] for main in MAINS.values()])
        variables = os.environ | {key: str(value) for key, value in env.items()}
        self.process = zygote.fork(f"test-{name}-{next(_NUMBERS)}", MAINS[name], env=variables, cwd=directory)

    @property
    def log(self) -> str:
        """Everything it has written so far."""
        return self.process.log.read_text() if self.process.log.exists() else ""

    def said(self, pattern: str) -> bool:
        """Wait until its log has a line that matches."""
        return bool(until(lambda: re.search(pattern, self.log)))

    def listening(self) -> Worker:
        """Wait until it accepts connections."""

        def accepts() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", int(str(self.port)))) == 0

        until(accepts)
        return self

    def ended(self) -> int:
        """Ask it to end, unless it did, and return its exit code; negative if it had to be killed."""
        return self.process.stop(Deadline(PATIENCE_S)).status

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One HTTP request: status, headers and body of the reply."""
        connection = HTTPConnection("127.0.0.1", int(str(self.port)), timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()


Start = Callable[..., Worker]


def free_port() -> int:
    """A port that nobody listens on, for as long as the tests run."""
    _LEASES.append(lease_port())
    return _LEASES[-1].number


@contextmanager
def starting(supervisor: Supervisor, directory: Path) -> Iterator[Start]:
    """A function that starts workers, which end with the context."""
    with ExitStack() as stack:

        def start(name: str, **env: object) -> Worker:
            worker = Worker(supervisor, name, directory, **env)
            stack.callback(worker.process.kill)
            return worker

        yield start


class Gate:
    """A port in front of a server that nobody listens on until `open`."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self.port = free_port()

    def open(self) -> None:
        """Begin to forward connections, for as long as the tests run."""
        listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(self._server)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with source, sink:
            try:
                while data := source.recv(65536):
                    sink.sendall(data)
            except OSError:
                pass


def place(db: psycopg.Connection, *seqs: int) -> str:
    """An order with these events in the outbox."""
    order_id = str(uuid4())
    db.execute(
        "insert into orders values (%s, 'c-1', 'sku-1', 1, 1999, 'EUR')",
        [order_id],
    )
    for seq in seqs:
        event = {"event_id": str(uuid4()), "type": "order.placed", "order_id": order_id, "seq": seq} | PAYLOAD
        db.execute(EVENT, event | {"payload": json.dumps(event), "traceparent": TRACEPARENT})
    return order_id


def unpublished(db: psycopg.Connection) -> list[tuple[str, int]]:
    """Order and seq of what is not marked."""
    return [(order_id, seq) for order_id, seq in db.execute("select order_id, seq from outbox_pending order by id")]


def paid(db: psycopg.Connection, order_id: str) -> bool:
    """Whether the order is known to be charged."""
    query = "select 1 from orders where order_id = %s and payment = 'charged'"
    return db.execute(query, [order_id]).fetchone() is not None
