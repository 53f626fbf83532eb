"""Hop 2: every event in the outbox reaches Kafka at least once, and per order in sequence."""
