"""Processes under test: forked from a warm parent or started by a command line, watched, killed and restarted."""
