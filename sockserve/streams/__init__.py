"""One stream connection while it is served: reader, writer, and the channels."""

__all__: list[str] = []
