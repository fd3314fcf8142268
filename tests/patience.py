"""How long tests wait for what must come."""

#: At most: far more than a loaded machine takes.  Only a test that fails waits so long.
PATIENCE_SECONDS = 60.0
