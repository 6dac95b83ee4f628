"""The archive engine."""
