"""Land, countries and grids of the Earth."""
