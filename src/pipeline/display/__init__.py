"""Hop 6: what a customer sees of an order. Only what the server has said, and nothing of it is taken back."""

from pipeline.hops import Hop

HOP = Hop(
    guarantee="A customer is shown no success before there is one, and what was ordered latest does not vanish.",
    defence="Only the server's states, each with a version that rises; own orders are merged; not to know is a state.",
    breaks="A list from before the order, or none; an answer that overtakes another; a POST without an answer of ours.",
    duplicate="A double click; a customer who does not know whether the order arrived.",
    removed="The form's key is the Idempotency-Key, kept with its price until there is an answer, or a day.",
    drills=("page",),
)
