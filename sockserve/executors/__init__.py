"""Where blocking handlers run: threads, and child processes."""

__all__: list[str] = []
