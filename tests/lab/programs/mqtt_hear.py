"""Prints the first message of a topic."""

import sys
from typing import Any

import paho.mqtt.client as mqtt

host, topic = sys.argv[1:]
version = getattr(mqtt, "CallbackAPIVersion", None)
of_paho_2: Any = {"callback_api_version": version.VERSION2} if version else {}
client = mqtt.Client(client_id="listener", protocol=mqtt.MQTTv5, **of_paho_2)


def heard(client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
    print(message.payload.decode(), flush=True)
    client.on_message = None  # the broker may send another one meanwhile
    client.disconnect()


client.on_message = heard
client.on_connect = lambda client, *more: client.subscribe(topic)
client.connect(host)
client.loop_forever()
