"""A POST to a peer's API from a source address: prints the status and the table of the answer."""

import http.client
import json
import sys

source, host, body = sys.argv[1:]
asked = http.client.HTTPConnection(host, 7333, 5.0, source_address=(source, 0))
asked.request("POST", "/v1/lease", body, {"Content-Type": "application/json"})
answer = asked.getresponse()
print(json.dumps([answer.status, json.loads(answer.read())]))
