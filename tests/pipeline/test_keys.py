"""A salted key is the same for all of an order's events, wherever it is made, and spreads a customer's orders."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from uuid import UUID

import pytest

from pipeline.route.keys import salted

ORDER = "ef90d387-d485-47a8-b8db-88a2356fa71a"
MAKE = f"from pipeline.route.keys import salted; print(salted('c-1', '{ORDER}', 64))"


@pytest.mark.parametrize(
    ("customer_id", "order_id", "salts", "key"),
    [("c-1", ORDER, 16, "c-1#11"), ("c-1", ORDER, 64, "c-1#27"), ("größte", "naïve-1", 16, "größte#2")],
)
def test_keys_are_what_they_were(customer_id: str, order_id: str, salts: int, key: str) -> None:
    """What was produced yesterday has the key that it would have today."""
    assert salted(customer_id, order_id, salts) == key


@pytest.mark.parametrize("seed", ["1", "2"])
def test_processes_agree(seed: str) -> None:
    """A key does not depend on what differs between processes, as Python's own hash does."""
    env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    made = subprocess.run([sys.executable, "-c", MAKE], env=env, capture_output=True, text=True, check=True)
    assert made.stdout.strip() == salted("c-1", ORDER, 64)


def test_one_salt_is_none() -> None:
    """With one salt, a customer has one key, whatever the order."""
    assert {salted("c-1", f"order-{n}", 1) for n in range(100)} == {"c-1#0"}


def test_customers_share_no_key() -> None:
    """The same order id under another customer is another key."""
    assert salted("c-1", ORDER, 64) != salted("c-2", ORDER, 64)


@pytest.mark.parametrize("salts", [6, 10, 16, 64])
@pytest.mark.parametrize("kind", ["{uuid}", "{n}", "order-{n}", "{n:08}"])
def test_orders_are_spread(kind: str, salts: int) -> None:
    """Each of a customer's keys has its share of the orders, also where their ids are consecutive numbers."""
    chance = random.Random(1)
    ids = [kind.format(n=n, uuid=UUID(int=chance.getrandbits(128), version=4)) for n in range(200 * salts)]
    shares = Counter(salted("c-1", order_id, salts) for order_id in ids)
    assert len(shares) == salts
    assert max(shares.values()) < 1.5 * 200
