"""What tests and benchmarks share: pools, archives, sshd, and other parts of the world."""
