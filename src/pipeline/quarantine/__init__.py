"""Hop 5: what cannot be handled leaves the way of its neighbours, is tried again, and ends where people look."""

from pipeline.hops import Hop

HOP = Hop(
    guarantee="What cannot be handled leaves the way of its neighbours, and its order's later events wait behind it.",
    defence="Parked by order in Postgres, in the group's transaction; a budget of attempts; then the dead letters.",
    breaks="An outage that is taken for a bad event; a mark without a letter; a charge that is sent back too late.",
    duplicate="A crash behind a burial buries again; a letter is sent back twice.",
    removed="Who reads letters, by x-origin-*; the note of a replay; the inbox, which passes over what was handled. "
    "None is ever removed: dead letters are kept for ever, unless somebody else made their topic.",
    drills=("poison", "flood", "returns"),
)
