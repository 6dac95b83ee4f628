"""What survives a restart of the pool server: the leases."""
