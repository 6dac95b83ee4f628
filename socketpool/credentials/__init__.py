"""What shows a lease or a client to be genuine: tokens, secrets, and the fence."""
