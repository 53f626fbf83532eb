"""Hop 3: which topic and which group, and what a client must be told so that one order's events stay in order."""
