"""Standing between a worker and its servers: protocols that see every effect as a frame."""
