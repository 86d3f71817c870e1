"""A trained network as a file that others run: graph, checks, tiles and what it says of itself."""
