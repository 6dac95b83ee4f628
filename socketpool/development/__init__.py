"""Run one instance of a service in the foreground, without a pool, for service authors."""
