"""Sends without an end to everybody who connects."""

import socket
import sys
import threading


def serve(stream: socket.socket) -> None:
    with stream:
        try:
            while True:
                stream.sendall(bytes(65536))
        except OSError:
            pass


with socket.create_server((sys.argv[1], 5001)) as listening:
    print("ready", flush=True)
    while True:
        threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
