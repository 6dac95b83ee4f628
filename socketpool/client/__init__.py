"""The client: the pool's API as a library, and the round trip of an archive."""
