"""logging.config.listen; prints the level it has been given."""

import logging.config
import threading

server = logging.config.listen(0)
server.start()
server.ready.wait()
try:
    print(server.port)
    threading.Event().wait()
except KeyboardInterrupt:
    print(logging.getLogger("configured").level)
    logging.config.stopListening()
    server.join()
