"""Finding out who clients are."""
