"""From the words a user writes to services: options, configuration file, imports."""

__all__: list[str] = []
