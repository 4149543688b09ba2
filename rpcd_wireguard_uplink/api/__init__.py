"""The object on the bus: the method table, its replies, and the handlers by subject."""
