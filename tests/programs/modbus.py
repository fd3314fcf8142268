"""A Modbus/TCP server as many are: holding registers, read (3) and written (6, 16)."""

import socketserver
import struct
import threading

HEADER = struct.Struct(">HHHB")  # transaction, protocol, length, unit

registers = [0] * 100
lock = threading.Lock()


class ModbusError(Exception):
    pass


class ModbusService(socketserver.BaseRequestHandler):
    def setup(self):
        self.request.settimeout(30.0)

    def recv_all(self, size):
        data = b""
        while len(data) < size:
            chunk = self.request.recv(size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def handle(self):
        try:
            while True:
                transaction, protocol, length, unit = HEADER.unpack(self.recv_all(HEADER.size))
                if protocol or not 2 <= length <= 254:
                    return
                pdu = self.recv_all(length - 1)
                try:
                    answer = bytes([pdu[0]]) + self.answer(pdu[0], pdu[1:])
                except ModbusError as error:
                    answer = bytes([pdu[0] | 0x80, error.args[0]])
                self.request.send(HEADER.pack(transaction, 0, len(answer) + 1, unit) + answer)
        except (EOFError, TimeoutError):
            pass

    def answer(self, function, data):
        if function not in (3, 6, 16):
            raise ModbusError(1)
        address, value = struct.unpack_from(">HH", data)
        if address + (value if function != 6 else 1) > len(registers):
            raise ModbusError(2)
        with lock:
            if function == 3:
                found = registers[address : address + value]
                return struct.pack(f">B{value}H", 2 * value, *found)
            if function == 6:
                registers[address] = value
            else:
                registers[address : address + value] = struct.unpack(f">{value}H", data[5:])
            return data[:4]


class ModbusServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


# As pyModbusTCP does, so that the family can be chosen.
server = ModbusServer(("127.0.0.1", 0), ModbusService, bind_and_activate=False)
server.server_bind()
server.server_activate()
print(server.server_address[1])
server.serve_forever()
