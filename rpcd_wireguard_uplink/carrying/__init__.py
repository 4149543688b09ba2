"""Whether traffic through the path in use is answered, and why where it is not."""
