"""The pure heart of the pool: ports, instances, leases.  No I/O; time is passed in."""
