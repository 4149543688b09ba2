"""Publishes a payload that the broker keeps."""

import sys
from typing import Any

import paho.mqtt.client as mqtt

host, topic, payload = sys.argv[1:]
version = getattr(mqtt, "CallbackAPIVersion", None)
of_paho_2: Any = {"callback_api_version": version.VERSION2} if version else {}
client = mqtt.Client(client_id="somebody", protocol=mqtt.MQTTv5, **of_paho_2)
client.connect(host)
client.loop_start()
client.publish(topic, payload, qos=1, retain=True).wait_for_publish(5.0)
client.disconnect()
client.loop_stop()
