"""Listeners: endpoints, server objects, and the machine that starts and stops them."""

from sockserve.core.environment import import_endpoints

__all__: list[str] = []

# The rooms here import what would import them in Twisted's way.
import_endpoints()
