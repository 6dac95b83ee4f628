"""For those who write services: one instance in the foreground, without a pool."""
