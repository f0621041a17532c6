"""Data sets: WS-DREAM and a seeded generator."""
