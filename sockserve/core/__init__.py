"""The common ground of all requests: lifecycle, deadlines, time, admission, tasks."""

__all__: list[str] = []
