"""Requests for leases from one source, each with a new key: JSON of [status, code] for each.

The arguments: own address, the provider's, own id, how many, seconds between two, and `release` to
give each back.
"""

import base64
import http.client
import json
import os
import sys
import time

source, host, peer_id, count, pause_s, *more = sys.argv[1:]


def ask(method: str, table: dict[str, str]) -> list[object]:
    opened = http.client.HTTPConnection(host, 7333, 10.0, source_address=(source, 0))
    try:
        opened.request(method, "/v1/lease", json.dumps(table))
        answer = opened.getresponse()
        return [answer.status, json.loads(answer.read()).get("code", "")]
    except OSError as error:
        return [0, type(error).__name__]
    finally:
        opened.close()


found = []
for _ in range(int(count)):
    key = base64.b64encode(os.urandom(32)).decode()
    asked = {"type": "lease_request", "peer_id": peer_id, "public_key": key}
    found.append(ask("POST", asked))
    if more and found[-1][0] == 200:
        ask("DELETE", {**asked, "type": "lease_release"})
    time.sleep(float(pause_s))
print(json.dumps(found))
