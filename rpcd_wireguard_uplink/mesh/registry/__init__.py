"""Who is who on the mesh, and who is trusted."""
