"""How processes compute together: collectives, sharding, synchronized layers."""
