"""Makes C{sockserve} a command of C{twistd}."""

from twisted.application.service import ServiceMaker


class _ServiceMaker(ServiceMaker):
    """C{twistd} asks for the options first, and so imports all that serves."""

    @property
    def options(self):
        from sockserve.core.garbage import importing_for_good  # not for each twistd

        with importing_for_good():
            return super().options


sockserve = _ServiceMaker(
    "sockserve",
    "sockserve.tap",
    "Serve requests with socketserver-style request handlers.",
    "sockserve",
)
