"""How offers travel besides the mesh's own HTTP."""
