"""Makes C{sockserve} a command of C{twistd}."""

from twisted.application.service import ServiceMaker

sockserve = ServiceMaker(
    "sockserve",
    "sockserve.tap",
    "Serve requests with socketserver-style request handlers.",
    "sockserve",
)
