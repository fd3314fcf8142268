"""The folder in which Django looks for the commands of an app."""

__all__: list[str] = []
