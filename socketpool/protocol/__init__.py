"""What client and services say to each other: frames, blocks, transfers, sessions."""
