"""JSON Schemas, the text formats that they name, and strict JSON."""
