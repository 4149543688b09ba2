"""A laboratory whose maker is to be killed: prints its folder and the nodes' pid namespaces."""

import os
import sys
import time

from tests.lab.lab import Lab
from tests.lab.network import consumer_network
from tests.lab.provider import make_provider

lab = Lab()
network = consumer_network(lab)
make_provider(lab, network.providers[0])
print(lab.folder, *sorted(os.readlink(f"/proc/{node.pid}/ns/pid") for node in lab.nodes))
sys.stdout.flush()
time.sleep(60)
