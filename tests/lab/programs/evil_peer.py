"""A mesh peer that answers whatever a file says: JSON of path -> [status, table or text].

The arguments are its address and that file. Requests for leases are appended to FILE.asked.
"""

import http.server
import json
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if body:
            with open(f"{sys.argv[2]}.asked", "ab") as file:
                file.write(self.command.encode() + b" " + body + b"\n")
        with open(sys.argv[2], encoding="utf-8") as file:
            status, said = json.load(file).get(self.path, [404, {"code": "gone", "error": "no"}])
        text = said if isinstance(said, str) else json.dumps(said)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_DELETE(self) -> None:
        self.answer()

    def log_message(self, *words: object) -> None:
        pass


server = http.server.ThreadingHTTPServer((sys.argv[1], 7333), Handler)
print("ready", flush=True)
server.serve_forever()
