"""The HTTP API: routes, schema, views, authorisation, and errors as problem details."""
