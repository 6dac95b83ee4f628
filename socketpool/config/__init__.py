"""YAML to immutable, validated settings; errors name the file, the key and what is allowed."""
