"""The payment provider: a process of its own, never broken by drills, whose log is the truth about charges."""
