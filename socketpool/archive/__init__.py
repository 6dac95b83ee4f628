"""The archive engine: what may leave a client's archive, and how changes come back into it.

``implode`` writes the members a policy allows into a fresh, minimal zip; ``merge`` splices changed
members into the original, where every other byte stays as it was.  This package's modules import
only what they need: the server checks and unpacks archives in small forked processes, so nothing
here is imported for convenience.  Start at :mod:`socketpool.archive.sources`.
"""
