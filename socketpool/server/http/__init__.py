"""The HTTP protocol under the API, and the fast path for leases."""
