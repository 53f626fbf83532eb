"""`./api --port PORT --db URL`: accepts orders of which nothing but the amount is said."""

from __future__ import annotations

import argparse
import json
import os
from unittest import mock

from pipeline.write import api, orders

REST = {"customer_id": "c-1", "sku": "sku-1", "quantity": 1, "currency": "EUR"}


def parse(body: bytes) -> orders.NewOrder:
    """An order, with what was not said."""
    return orders.parse(json.dumps(REST | json.loads(body)).encode())


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port")
    parser.add_argument("--db")
    told = parser.parse_args()
    os.environ |= {"PORT": told.port, "DATABASE_URL": told.db}
    with mock.patch.object(api, "parse", parse):
        api.main()


if __name__ == "__main__":
    main()
