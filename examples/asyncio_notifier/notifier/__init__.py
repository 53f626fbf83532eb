"""Tells customers by text message what became of their orders."""
