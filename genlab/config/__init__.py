"""How a key becomes an argument: composition, validation, building, trust."""
