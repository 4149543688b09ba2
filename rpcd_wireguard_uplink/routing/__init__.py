"""mwan3: the lasting policy behind steering."""
