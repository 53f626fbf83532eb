"""The servers a system stands on, and where they come from."""
