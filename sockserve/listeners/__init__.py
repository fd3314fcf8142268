"""Listeners: endpoints, server objects, and the machine that starts and stops them."""

__all__: list[str] = []
