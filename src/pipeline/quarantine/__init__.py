"""Hop 5: what cannot be handled leaves the way of its neighbours, is tried again, and ends where people look."""
