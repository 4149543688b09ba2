"""mwan3: the lasting policy behind the steering controller."""
