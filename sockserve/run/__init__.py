"""The way from a user's words to services: configuration, its file, and imports."""

__all__: list[str] = []
