"""logging.config.listen; prints the level it has been given."""

import logging.config

from tests.programs.waiting import wait_for_interrupt

server = logging.config.listen(0)
server.start()
server.ready.wait()
try:
    print(server.port)
    wait_for_interrupt()
except KeyboardInterrupt:
    print(logging.getLogger("configured").level)
    logging.config.stopListening()
    server.join()
