"""The way to a pool through SSH: one connection, a channel for each stream, no port of its own.

Whatever imports paramiko is imported only by who uses it: it takes more than half a second.
"""
