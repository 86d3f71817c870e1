"""Expensive runs on real data, with their results committed; never part of the tests."""
