"""The commands of C{manage.py}, each a module of its name."""

__all__: list[str] = []
