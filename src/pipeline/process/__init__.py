"""Hop 4: each event takes effect once per consumer group, however often it is delivered."""
