"""Instances: cells made of the probabilities of a network."""
