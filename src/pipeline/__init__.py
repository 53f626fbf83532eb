"""The system under test: one order's way from POST /orders to exactly one charge. Read the rooms in that order.

`write` accepts it, `publish` carries it to Kafka, `route` says where it goes, `process` charges it, `gateway` is the
payment provider whose log says what really happened.
"""
