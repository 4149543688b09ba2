"""What routers of the mesh say to one another: offers, leases, identities, and their signatures."""
