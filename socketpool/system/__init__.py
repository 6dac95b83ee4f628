"""What only Linux has, one module for each concern."""
