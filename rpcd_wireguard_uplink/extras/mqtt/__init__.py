"""Offers over an MQTT broker, for meshes that are larger than one node can poll."""
