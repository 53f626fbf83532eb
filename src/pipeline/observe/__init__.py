"""What an operator sees: gauges of all hops, read from Postgres and Kafka, and of each process."""
