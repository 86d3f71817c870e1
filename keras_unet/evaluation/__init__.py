"""Evaluation: predictions scored against labels."""
