"""The migrations of the table of tasks."""

__all__: list[str] = []
