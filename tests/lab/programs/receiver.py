"""A web server that appends what is posted to a file: sender, path and body."""

import http.server
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with open(sys.argv[2], "a") as file:
            file.write(f"{self.client_address[0]} {self.path} {body}\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


server = http.server.ThreadingHTTPServer((sys.argv[1], 8080), Handler)
print("ready", flush=True)
server.serve_forever()
