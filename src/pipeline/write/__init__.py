"""Hop 1: an accepted order is durable together with its event, and accepted once per Idempotency-Key."""

from pipeline.hops import Hop

HOP = Hop(
    guarantee="An accepted order is durable together with its event, and accepted once per Idempotency-Key.",
    defence="One transaction writes the order, its row in the outbox and the answer for its key.",
    breaks="A crash around COMMIT; a reply that is lost.",
    duplicate="A customer who got no answer asks again.",
    removed="The key's row, which is never removed: the stored answer comes again.",
    drills=("every_point", "page"),
)
