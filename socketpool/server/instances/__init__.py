"""The instances of the pool: observed, decided upon, started, probed, stopped, and replaced."""
