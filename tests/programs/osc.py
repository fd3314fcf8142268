"""python-osc's server: a thread for each datagram."""

from pythonosc.dispatcher import Dispatcher
from pythonosc.osc_server import ThreadingOSCUDPServer

dispatcher = Dispatcher()
dispatcher.map("/add", lambda address, *numbers: ("/sum", sum(numbers)))
ThreadingOSCUDPServer(("127.0.0.1", 0), dispatcher).serve_forever()
