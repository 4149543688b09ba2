"""Takes connections on an address and port, greets as an MQTT broker, keeps all bytes in a file."""

import socket
import sys
import threading

CONNACK = bytes((0x20, 3, 0, 0, 0))


def take(opened: socket.socket) -> None:
    with opened, open(sys.argv[3], "ab") as file:
        while data := opened.recv(65536):
            file.write(data)
            file.flush()
            opened.sendall(CONNACK)


family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
print("ready", flush=True)
while True:
    threading.Thread(target=take, args=(listener.accept()[0],), daemon=True).start()
