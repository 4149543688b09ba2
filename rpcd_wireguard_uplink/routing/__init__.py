"""Where packets go: the lane that moves them, and the lasting policy behind it."""
