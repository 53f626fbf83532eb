"""Hop 3: which topic and which group, and what a client must be told so that one order's events stay in order."""

from pipeline.hops import Hop

HOP = Hop(
    guarantee="The events of an order stay in order.",
    defence="The key is the order, so they share a partition; all producers are idempotent and map keys alike.",
    breaks="A producer with its library's defaults: a retry overtakes or doubles, and keys go elsewhere.",
    duplicate="A produce request whose reply is lost is sent again.",
    removed="The broker, by the producer's id and sequence, until that producer ends.",
    drills=("hot_key", "relays", "storm"),
)
