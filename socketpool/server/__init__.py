"""The pool server: the HTTP API, and the pool manager that joins core, supervisord and store."""
