"""Runs that are over: found, restored with their weights, put together."""
