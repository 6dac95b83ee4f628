"""What runs a service on its port: a parent process, and a process for each session."""
