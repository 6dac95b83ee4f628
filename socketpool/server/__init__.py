"""The pool server: the HTTP API, and the keeper that joins core, supervisord and store."""
