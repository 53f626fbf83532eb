"""The payment group and its gateway: many requests at once, an answer for each, or all of them asked again."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from pipeline.events import Failed, ItemPriced
from pipeline.gateway.ledger import DECLINED_AMOUNT
from pipeline.gateway_client import AT_ONCE, Asked, Gateway, Refused
from pipeline.process.payment import Payment
from pipeline.runtime import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from tests.pipeline.workers import Worker

SLOW_S = 0.05  # longer than it takes to send the others


def asked(count: int, **changed: Any) -> list[Asked]:
    """So many charges."""
    return [Asked(f"key-{n}", f"order-{n}", 1999, "EUR")._replace(**changed) for n in range(count)]


class Told(ThreadingHTTPServer):
    """A gateway that answers a request as `say` does: a status, or nothing at all."""

    def __init__(self, say: Callable[[str], int | None]) -> None:
        self.say = say
        self.under_way = 0
        self.seen: list[tuple[str, int]] = []  # keys, and how many requests were under way with each
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Answering)


class Answering(BaseHTTPRequestHandler):
    """Of one connection."""

    protocol_version = "HTTP/1.1"
    server: Told

    def do_POST(self) -> None:
        """Take some time to answer."""
        key = self.headers["Idempotency-Key"]
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.under_way += 1
        time.sleep(SLOW_S)
        with self.server.lock:
            self.server.seen.append((key, self.server.under_way))
            self.server.under_way -= 1
        status = self.server.say(key)
        if status is None:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_GET(self) -> None:
        """Have an answer that is none."""
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[1")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@contextmanager
def telling(say: Callable[[str], int | None], silence_s: float = 3) -> Iterator[tuple[Told, Gateway]]:
    """Such a gateway, and a client of it."""
    with Told(say) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with closing(Gateway(f"http://127.0.0.1:{server.server_address[1]}", silence_s)) as one:
                yield server, one
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def one(gateway: Worker) -> Iterator[Gateway]:
    """A client of a real gateway."""
    with closing(Gateway(f"http://127.0.0.1:{gateway.port}")) as one:
        yield one


def test_many_at_once(gateway: Worker, one: Gateway) -> None:
    """Each has its own answer, in the order in which they were asked; the same keys again have the same."""
    many = asked(3 * AT_ONCE)
    many[AT_ONCE] = many[AT_ONCE]._replace(amount=DECLINED_AMOUNT)
    said = [n != AT_ONCE for n in range(3 * AT_ONCE)]
    assert one.charge(many) == said
    assert one.charge(many) == said
    for number, wanted in enumerate(many):
        records = json.loads(gateway.ask("GET", f"/charges?order_id=order-{number}")[2])
        assert [(record["key"], record["effect"]) for record in records] == [
            (wanted.key, said[number]),
            (wanted.key, False),
        ]


def test_they_are_under_way_together() -> None:
    """Not more than so many, and not one after the other."""
    with telling(lambda _: 201) as (server, one):
        assert one.charge(asked(AT_ONCE + 2)) == [True] * (AT_ONCE + 2)
    assert max(count for _, count in server.seen) in range(2, AT_ONCE + 1)


@pytest.mark.parametrize("answer", [503, 500, 429, 408, None])
def test_a_gateway_that_has_failed_is_asked_one_thing_first(answer: int | None) -> None:
    """Where one has no answer nobody has; then nothing else is asked before something is answered."""
    away = True
    with telling(lambda key: answer if away and key == "key-1" else 402) as (server, one):
        with pytest.raises(Unavailable, match="The gateway at http"):
            one.charge(asked(4))
        with pytest.raises(Unavailable):
            one.charge(asked(2)[1:])
        time.sleep(2 * SLOW_S)
        away, server.say = False, lambda _: 201
        server.seen.clear()
        assert one.charge(asked(4)) == [True] * 4, "an answer was taken for that of another request"
        assert server.seen[0] == ("key-0", 1)


def test_silence_ends() -> None:
    """A gateway that does not answer in time is away, and is heard when it is back."""
    back = threading.Event()

    def say(_: str) -> int:
        back.wait(10)
        return 201

    with telling(say, 3 * SLOW_S) as (_, one):
        with pytest.raises(Unavailable, match="timed out"):
            one.charge(asked(1))
        threading.Timer(SLOW_S, back.set).start()
        assert one.charge(asked(1)) == [True]


def test_what_was_charged(one: Gateway) -> None:
    """Each key that was asked with for an order, and what became of it the first time."""
    yes, no = asked(2, order_id="o")
    no = no._replace(amount=DECLINED_AMOUNT)
    assert one.charges("o") == {}
    assert one.charge([yes, no, yes]) == [True, False, True]
    with pytest.raises(Refused, match="422"):
        one.charge([yes._replace(amount=2)])
    one.charge(asked(1, order_id="another", key="another"))
    assert one.charges("o") == {yes.key: True, no.key: False}


def test_an_answer_that_is_none() -> None:
    """What is no list of charges does not mean that there are none."""
    with telling(lambda _: 201) as (_, one), pytest.raises(Refused, match="no list of charges"):
        one.charges("o")


def test_what_is_at_fault_itself(one: Gateway) -> None:
    """What the gateway refuses for good is no outage: it says so, and is not asked for again."""
    assert one.charge(asked(1)) == [True]
    with pytest.raises(Refused, match="422"):
        one.charge(asked(1, amount=2))
    with pytest.raises(Refused, match="409"):
        one.refund(asked(1, key="another", amount=2000))


def priced(amount: int = 1999) -> ItemPriced:
    """An order was placed."""
    return ItemPriced(event_id=uuid4(), order_id=uuid4().hex, seq=1, amount=amount, currency="EUR")


def failed(placed: ItemPriced) -> Failed:
    """It has failed."""
    return Failed(event_id=uuid4(), order_id=placed.order_id, seq=2, customer_id="c-1")


def test_what_failed_is_given_back(db: psycopg.Connection, gateway: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was paid for an order that has failed, once, and nothing for one whose card was declined."""
    db.execute("truncate refunds")
    monkeypatch.setenv("GATEWAY_URL", f"http://127.0.0.1:{gateway.port}")
    paid, back, declined = priced(), priced(5), priced(DECLINED_AMOUNT)
    for one in (paid, back, declined):
        db.execute("insert into orders values (%s, 'c-1', 'sku-1', 1, %s, 'EUR')", [one.order_id, one.amount])
    payment = Payment()
    with closing(payment.gateway):
        payment.effect(db, [paid, back, declined, failed(back)])
        payment.effect(db, [failed(declined)])

    def moved(path: str, one: ItemPriced) -> int:
        records = json.loads(gateway.ask("GET", f"/{path}?order_id={one.order_id}")[2])
        return sum(record["amount"] for record in records if record["effect"])

    assert [(moved("charges", one), moved("refunds", one)) for one in (paid, back, declined)] == [
        (1999, 0),
        (5, 5),
        (0, 0),
    ]
    rows = db.execute("select order_id, state from payments").fetchall()
    assert sorted(rows) == sorted([(paid.order_id, "paid"), (back.order_id, "paid"), (declined.order_id, "declined")])
    assert db.execute("select order_id, amount, currency from refunds").fetchall() == [(back.order_id, 5, "EUR")]
