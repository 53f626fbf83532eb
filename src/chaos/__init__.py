"""Prove that systems built from real workers, Postgres and Kafka survive crashes."""
