"""Hop 4: each event takes effect once per consumer group, however often it is delivered."""

from pipeline.hops import Hop

HOP = Hop(
    guarantee="Each event takes effect once per consumer group, however often it is delivered.",
    defence="A row in the inbox in the effect's transaction; the gateway's key is made from the order; offsets last.",
    breaks="Redelivery, a rebalance, a zombie, a commit whose outcome nobody heard, a gateway that does not answer.",
    duplicate="An event is delivered again; a charge whose reply was lost is asked for again.",
    removed="The inbox, for ever; the gateway, for as long as it keeps keys (GATEWAY_KEEPS_KEYS_S).",
    drills=("shop", "groups", "storm", "memberships", "outage", "once_is_not_enough", "lost_confirmations"),
)
