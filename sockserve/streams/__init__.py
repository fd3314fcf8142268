"""Stream connections while they are served: reader, writer, channels, and the client's end."""

__all__: list[str] = []
