"""The common ground of all requests: lifecycle, deadlines, admission and statistics."""

__all__: list[str] = []
