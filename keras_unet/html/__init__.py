"""A page for a browser: one HTML file that holds all it shows and asks no network."""
