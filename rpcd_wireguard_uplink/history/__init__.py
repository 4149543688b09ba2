"""What was: changes of paths, uplinks and peers, and the numbers of paths over time."""
