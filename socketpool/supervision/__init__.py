"""supervisord: its configuration, its RPC, its life, and the processes under it."""
