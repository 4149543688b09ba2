"""A web server that answers every page with one status and, if given, a place to go to."""

import http.server
import sys

host, port, code, *places = sys.argv[1:]
place = places[0] if places else ""


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(code))
        if place:
            self.send_header("Location", place)
        self.send_header("Content-Length", "0")
        self.send_header("X-Asker", self.client_address[0])
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


server = http.server.ThreadingHTTPServer((host, int(port)), Page)
print("ready", flush=True)
server.serve_forever()
