"""Looks a pool and its host over: gathers facts, judges them, and says what to do."""
