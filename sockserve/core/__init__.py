"""What every kind of request shares: its lifecycle, deadlines, admission and numbers."""

__all__: list[str] = []
