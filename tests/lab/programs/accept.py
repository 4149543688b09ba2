"""Accepts connections at a port of some addresses, and closes them."""

import selectors
import socket
import sys

port, addresses = int(sys.argv[1]), sys.argv[2:]
listening = selectors.DefaultSelector()
for address in addresses:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening.register(socket.create_server((address, port), family=family), selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in listening.select():
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.accept()[0].close()
