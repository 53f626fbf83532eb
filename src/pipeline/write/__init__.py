"""Hop 1: an accepted order is durable together with its event, and accepted once per Idempotency-Key."""
