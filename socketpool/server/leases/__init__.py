"""Leases: queue, grants, history, durable commits, and recovery."""
