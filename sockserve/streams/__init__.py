"""Stream connections while they are served: reader, writer, and the channels."""

__all__: list[str] = []
