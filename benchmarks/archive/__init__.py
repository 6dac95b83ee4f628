"""What the archive engine costs beside ``cp`` and beside other programs for the same job."""
