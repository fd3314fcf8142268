"""The core: lifecycle, deadlines, admission and numbers, which every kind of request shares."""

__all__: list[str] = []
