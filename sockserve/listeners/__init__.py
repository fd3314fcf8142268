"""What listens and accepts: server objects, endpoints, and the listener machine."""

__all__: list[str] = []
