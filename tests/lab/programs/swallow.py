"""The other end of saturate.py: answers datagrams that ask, and reads streams to nothing.

Arguments: udp or tcp, address. A line says that all flows are there: from then on datagrams are
left unread.
"""

import selectors
import socket
import sys
from threading import Thread

PORT = 5002
kind, address = sys.argv[1:3]
if kind == "udp":
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, PORT))
    is_told: list[str] = []
    Thread(target=lambda: is_told.append(sys.stdin.readline()), daemon=True).start()
    datagrams.settimeout(0.2)
    print("ready", flush=True)
    while not is_told:
        try:
            data, sender = datagrams.recvfrom(100)
        except TimeoutError:
            continue
        if data == b"?":
            datagrams.sendto(b"!", sender)
    sys.stdin.readline()
else:
    server = socket.create_server((address, PORT), backlog=2048)
    print("ready", flush=True)
    watched = selectors.DefaultSelector()
    watched.register(server, selectors.EVENT_READ)
    room = bytearray(1 << 20)
    while True:
        for key, _ in watched.select():
            if key.fileobj is server:
                watched.register(server.accept()[0], selectors.EVENT_READ)
            elif not key.fileobj.recv_into(room, len(room), socket.MSG_TRUNC):  # type: ignore[union-attr]
                watched.unregister(key.fileobj)
